//! What this machine can do.
//!
//! An [`Engine`] is only made by asking the processor, so whoever holds one may run what it names.

/// What encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherEngine {
    /// aws-lc, one packet at a time: every machine.
    Portable,
    /// AES-NI, eight chains.
    #[cfg(target_arch = "x86_64")]
    AesNi,
    /// VAES with AVX-512, four chains a register and up to twenty-four in flight.
    #[cfg(target_arch = "x86_64")]
    Vaes,
}

impl CipherEngine {
    /// Every engine, the fastest first.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Vaes,
        #[cfg(target_arch = "x86_64")]
        Self::AesNi,
        Self::Portable,
    ];

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::AesNi => is_x86_feature_detected!("aes"),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes => {
                Self::AesNi.is_available() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vaes")
            }
        }
    }
}

/// What hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashEngine {
    /// RustCrypto, one packet at a time: every machine.
    Portable,
    /// The SHA extensions, several streams at a time; SHA-384 and SHA-512 as [`HashEngine::Portable`].
    #[cfg(target_arch = "x86_64")]
    ShaNi,
    /// AVX2, eight lanes; SHA-384 and SHA-512 as [`HashEngine::Portable`].
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512, sixteen lanes or thirty-two, of SHA-384 and SHA-512 eight.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl HashEngine {
    /// Every engine, the fastest first when it is full.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::ShaNi,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Portable,
    ];

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi => {
                is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
        }
    }

    /// Whether it costs the same for one packet as for a register full.
    const fn is_wide(self) -> bool {
        match self {
            Self::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => true,
        }
    }
}

/// How a [`LaneKey`](crate::LaneKey) computes. It exists only where the machine can do what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    cipher: CipherEngine,
    few: HashEngine,
    many: HashEngine,
}

impl Engine {
    /// One packet at a time, by libraries: every machine has it.
    pub const PORTABLE: Self =
        Self { cipher: CipherEngine::Portable, few: HashEngine::Portable, many: HashEngine::Portable };

    /// The fastest of this machine.
    pub fn detect() -> Self {
        let cipher = CipherEngine::ALL.iter().copied().find(|cipher| cipher.is_available());
        let many = HashEngine::ALL.iter().copied().find(|hash| hash.is_available());
        let few = HashEngine::ALL.iter().copied().find(|hash| !hash.is_wide() && hash.is_available());
        Self {
            cipher: cipher.unwrap_or(CipherEngine::Portable),
            few: few.unwrap_or(HashEngine::Portable),
            many: many.unwrap_or(HashEngine::Portable),
        }
    }

    /// This cipher with this hash for any number of packets; `None` where the machine lacks one of them.
    pub fn of(cipher: CipherEngine, hash: HashEngine) -> Option<Self> {
        (cipher.is_available() && hash.is_available()).then_some(Self { cipher, few: hash, many: hash })
    }

    /// Every pair that this machine has, for tests and measurements, and what [`Engine::detect`] makes of them.
    pub fn available() -> Vec<Self> {
        let pairs =
            CipherEngine::ALL.iter().flat_map(|&cipher| HashEngine::ALL.iter().map(move |&hash| (cipher, hash)));
        pairs.filter_map(|(cipher, hash)| Self::of(cipher, hash)).chain([Self::detect()]).collect()
    }

    /// What encrypts and decrypts.
    pub const fn cipher(self) -> CipherEngine {
        self.cipher
    }

    /// What hashes when so few packets are at hand that a wide register would stay mostly empty.
    pub const fn few(self) -> HashEngine {
        self.few
    }

    /// What hashes many packets.
    pub const fn many(self) -> HashEngine {
        self.many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_the_portable_engine() {
        assert!(Engine::available().contains(&Engine::PORTABLE));
    }

    #[test]
    fn what_is_detected_is_available() {
        let engine = Engine::detect();
        assert!(engine.cipher().is_available() && engine.few().is_available() && engine.many().is_available());
        assert!(!engine.few().is_wide());
    }
}
