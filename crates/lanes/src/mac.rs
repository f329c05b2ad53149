//! HMAC (RFC 2104) of several messages at a time, from mid-states that were computed when the key was set.
//!
//! A hash is seen as one function: advance these states over those blocks. The inner and the outer pass of HMAC are
//! two calls of it, so an engine knows nothing of keys, padding or truncation.

use base::algorithm::Integrity;
use zeroize::Zeroize;

use crate::engine::{Engine, HashEngine};
use crate::lane::Lane;
use crate::{Unsupported, WINDOW};

/// An untruncated checksum; what is longer than the hash is zero.
pub(crate) type Tag = [u8; 64];

/// Messages that are laid out at once: what the widest engine takes.
const GROUP: usize = WINDOW;

/// An HMAC key as its two mid-states.
pub(crate) enum Mac {
    Sha1(Keyed<Sha1>),
    Sha256(Keyed<Sha256>),
    Sha384(Keyed<Sha384>),
    Sha512(Keyed<Sha512>),
}

impl Mac {
    pub(crate) fn new(integrity: Integrity, key: &[u8], engine: Engine) -> Result<Self, Unsupported> {
        match integrity {
            Integrity::Md5 => Err(Unsupported::Suite),
            Integrity::Sha1 => Ok(Self::Sha1(Keyed::new::<64>(key, engine))),
            Integrity::Sha256 => Ok(Self::Sha256(Keyed::new::<64>(key, engine))),
            Integrity::Sha384 => Ok(Self::Sha384(Keyed::new::<128>(key, engine))),
            Integrity::Sha512 => Ok(Self::Sha512(Keyed::new::<128>(key, engine))),
        }
    }

    /// The checksums of what each lane authenticates.
    pub(crate) fn sign(&self, lanes: &[Lane<'_>]) -> [Tag; WINDOW] {
        let mut messages: [(&[u8], &[u8]); WINDOW] = Default::default();
        for (message, lane) in messages.iter_mut().zip(lanes) {
            *message = lane.message();
        }
        let mut tags = [[0; 64]; WINDOW];
        self.sign_messages(&messages[..lanes.len()], &mut tags);
        tags
    }

    /// The checksums of messages of two parts each.
    fn sign_messages(&self, messages: &[(&[u8], &[u8])], tags: &mut [Tag]) {
        for (messages, tags) in messages.chunks(GROUP).zip(tags.chunks_mut(GROUP)) {
            match self {
                Self::Sha1(keyed) => keyed.sign::<64>(messages, tags),
                Self::Sha256(keyed) => keyed.sign::<64>(messages, tags),
                Self::Sha384(keyed) => keyed.sign::<128>(messages, tags),
                Self::Sha512(keyed) => keyed.sign::<128>(messages, tags),
            }
        }
    }
}

/// A hash of the SHA family with blocks of `B` bytes.
pub(crate) trait Hash<const B: usize>: Stated {
    /// The state before the first block (FIPS 180-4 §5.3).
    const INITIAL: Self::State;
    /// Bytes of digest.
    const LEN: usize;
    /// From how many messages on [`Engine::many`] is faster than [`Engine::few`]; measured.
    const MANY: usize;

    /// Advances each state over its message.
    fn advance(engine: HashEngine, states: &mut [Self::State], messages: &[Message<'_, B>]);

    fn digest(state: &Self::State) -> Tag;
}

/// The two mid-states of a key, zeroed when dropped.
pub(crate) struct Keyed<H: Stated> {
    engine: Engine,
    inner: H::State,
    outer: H::State,
}

/// What [`Keyed`] must know of a hash without naming its block length.
pub(crate) trait Stated {
    type State: Copy + Default + Zeroize;
}

impl<H: Stated> Drop for Keyed<H> {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

impl<H: Stated> Keyed<H> {
    fn new<const B: usize>(key: &[u8], engine: Engine) -> Self
    where
        H: Hash<B>,
    {
        let mut block = [0; B];
        if key.len() > B {
            // RFC 2104 §2: a key longer than a block is hashed first.
            let mut state = [H::INITIAL];
            H::advance(HashEngine::Portable, &mut state, &[Message::new(key, &[], 0)]);
            let digest = H::digest(&state[0]);
            block[..H::LEN].copy_from_slice(&digest[..H::LEN]);
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let masked = |mask: u8| {
            let mut padded = block.map(|byte| byte ^ mask);
            let mut state = [H::INITIAL];
            H::advance(HashEngine::Portable, &mut state, &[Message::of_block(&padded)]);
            padded.zeroize();
            state[0]
        };
        let keyed = Self { engine, inner: masked(0x36), outer: masked(0x5c) };
        block.zeroize();
        keyed
    }

    /// At most [`GROUP`] messages.
    fn sign<const B: usize>(&self, messages: &[(&[u8], &[u8])], tags: &mut [Tag])
    where
        H: Hash<B>,
    {
        let count = messages.len();
        let engine = if count < H::MANY { self.engine.few() } else { self.engine.many() };
        let mut laid: [Message<'_, B>; GROUP] = std::array::from_fn(|_| Message::EMPTY);
        for (laid, (body, suffix)) in laid.iter_mut().zip(messages) {
            *laid = Message::new(body, suffix, B);
        }
        let mut states = [self.inner; GROUP];
        H::advance(engine, &mut states[..count], &laid[..count]);

        for (laid, state) in laid[..count].iter_mut().zip(&states) {
            *laid = Message::new(&[], &H::digest(state)[..H::LEN], B);
        }
        let mut states = [self.outer; GROUP];
        H::advance(engine, &mut states[..count], &laid[..count]);
        for (tag, state) in tags.iter_mut().zip(&states[..count]) {
            *tag = H::digest(state);
        }
    }
}

/// A message in blocks, with the padding of FIPS 180-4 §5.1: the whole blocks where they lie, then a tail.
#[derive(Clone)]
pub(crate) struct Message<'a, const B: usize> {
    body: &'a [[u8; B]],
    tail: [[u8; B]; 2],
    tail_len: usize,
}

impl<'a, const B: usize> Message<'a, B> {
    const EMPTY: Self = Self { body: &[], tail: [[0; B]; 2], tail_len: 0 };

    /// `before` bytes were hashed already; `suffix` is at most a digest long.
    fn new(bytes: &'a [u8], suffix: &[u8], before: usize) -> Self {
        let (body, rest) = bytes.as_chunks();
        let mut tail = [[0; B]; 2];
        let flat = tail.as_flattened_mut();
        let len = rest.len() + suffix.len();
        flat[..rest.len()].copy_from_slice(rest);
        flat[rest.len()..len].copy_from_slice(suffix);
        flat[len] = 0x80;
        // The length is 8 bytes of SHA-1 and SHA-256, 16 of the others: an eighth of the block.
        let tail_len = (len + 1 + B / 8).div_ceil(B);
        let bits = (before + bytes.len() + suffix.len()) as u64 * 8;
        flat[tail_len * B - 8..tail_len * B].copy_from_slice(&bits.to_be_bytes());
        Self { body, tail, tail_len }
    }

    /// One block as it is.
    fn of_block(block: &'a [u8; B]) -> Self {
        Self { body: std::slice::from_ref(block), ..Self::EMPTY }
    }

    /// The blocks that lie in the packet.
    pub(crate) const fn body(&self) -> &'a [[u8; B]] {
        self.body
    }

    /// The blocks with the padding.
    pub(crate) fn tail(&self) -> &[[u8; B]] {
        &self.tail[..self.tail_len]
    }

    pub(crate) const fn len(&self) -> usize {
        self.body.len() + self.tail_len
    }

    /// Block `at`; past the end, the padding's last.
    pub(crate) fn block(&self, at: usize) -> &[u8; B] {
        match self.body.get(at) {
            Some(block) => block,
            None => &self.tail[(at - self.body.len()).min(1)],
        }
    }
}

/// SHA-1 (FIPS 180-4 §6.1).
pub(crate) struct Sha1;
/// SHA-256 (FIPS 180-4 §6.2).
pub(crate) struct Sha256;
/// SHA-384 (FIPS 180-4 §6.5).
pub(crate) struct Sha384;
/// SHA-512 (FIPS 180-4 §6.4).
pub(crate) struct Sha512;

impl Stated for Sha1 {
    type State = [u32; 5];
}

impl Stated for Sha256 {
    type State = [u32; 8];
}

impl Stated for Sha384 {
    type State = [u64; 8];
}

impl Stated for Sha512 {
    type State = [u64; 8];
}

impl Hash<64> for Sha1 {
    const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    const LEN: usize = 20;
    const MANY: usize = 10;

    fn advance(engine: HashEngine, states: &mut [[u32; 5]], messages: &[Message<'_, 64>]) {
        match engine {
            HashEngine::Portable => one_by_one(states, messages, sha1::block_api::compress),
            #[cfg(target_arch = "x86_64")]
            HashEngine::ShaNi => crate::x86::sha_ni::sha1(states, messages),
            #[cfg(target_arch = "x86_64")]
            HashEngine::Avx2 => crate::x86::avx2::sha1(states, messages),
            #[cfg(target_arch = "x86_64")]
            HashEngine::Avx512 => crate::x86::avx512::sha1(states, messages),
        }
    }

    fn digest(state: &[u32; 5]) -> Tag {
        big_endian(state.iter().map(|word| word.to_be_bytes()))
    }
}

impl Hash<64> for Sha256 {
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    const LEN: usize = 32;
    const MANY: usize = 9;

    fn advance(engine: HashEngine, states: &mut [[u32; 8]], messages: &[Message<'_, 64>]) {
        match engine {
            HashEngine::Portable => one_by_one(states, messages, sha2::block_api::compress256),
            #[cfg(target_arch = "x86_64")]
            HashEngine::ShaNi => crate::x86::sha_ni::sha256(states, messages),
            #[cfg(target_arch = "x86_64")]
            HashEngine::Avx2 => crate::x86::avx2::sha256(states, messages),
            #[cfg(target_arch = "x86_64")]
            HashEngine::Avx512 => crate::x86::avx512::sha256(states, messages),
        }
    }

    fn digest(state: &[u32; 8]) -> Tag {
        big_endian(state.iter().map(|word| word.to_be_bytes()))
    }
}

impl Hash<128> for Sha384 {
    const INITIAL: [u64; 8] = [
        0xcbbb_9d5d_c105_9ed8,
        0x629a_292a_367c_d507,
        0x9159_015a_3070_dd17,
        0x152f_ecd8_f70e_5939,
        0x6733_2667_ffc0_0b31,
        0x8eb4_4a87_6858_1511,
        0xdb0c_2e0d_64f9_8fa7,
        0x47b5_481d_befa_4fa4,
    ];
    const LEN: usize = 48;
    const MANY: usize = Sha512::MANY;

    fn advance(engine: HashEngine, states: &mut [[u64; 8]], messages: &[Message<'_, 128>]) {
        Sha512::advance(engine, states, messages);
    }

    fn digest(state: &[u64; 8]) -> Tag {
        Sha512::digest(state)
    }
}

impl Hash<128> for Sha512 {
    const INITIAL: [u64; 8] = [
        0x6a09_e667_f3bc_c908,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
    ];
    const LEN: usize = 64;
    const MANY: usize = 2;

    fn advance(engine: HashEngine, states: &mut [[u64; 8]], messages: &[Message<'_, 128>]) {
        match engine {
            HashEngine::Portable => one_by_one(states, messages, sha2::block_api::compress512),
            #[cfg(target_arch = "x86_64")]
            HashEngine::ShaNi | HashEngine::Avx2 => one_by_one(states, messages, sha2::block_api::compress512),
            #[cfg(target_arch = "x86_64")]
            HashEngine::Avx512 => crate::x86::avx512::sha512(states, messages),
        }
    }

    fn digest(state: &[u64; 8]) -> Tag {
        big_endian(state.iter().map(|word| word.to_be_bytes()))
    }
}

fn one_by_one<S, const B: usize>(states: &mut [S], messages: &[Message<'_, B>], compress: fn(&mut S, &[[u8; B]])) {
    for (state, message) in states.iter_mut().zip(messages) {
        compress(state, message.body());
        compress(state, message.tail());
    }
}

fn big_endian<const W: usize>(words: impl Iterator<Item = [u8; W]>) -> Tag {
    let mut tag = [0; 64];
    for (bytes, word) in tag.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digits: &str) -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    /// The message alone, and among others of every length around it, by every engine of this machine.
    fn check(integrity: Integrity, key: &[u8], message: &[u8], expected: &str) {
        let expected = hex(expected);
        for engine in Engine::available() {
            let mac = Mac::new(integrity, key, engine).unwrap();
            for count in [1, 2, 3, 4, 5, 8, 15, 16, 17, WINDOW] {
                let other = vec![0x5a; message.len() + count];
                for place in [0, count / 2, count - 1] {
                    let mut messages: Vec<(&[u8], &[u8])> = (0..count).map(|at| (&other[at..], &[][..])).collect();
                    messages[place] = (message, &[]);
                    let mut tags = [[0; 64]; WINDOW];
                    mac.sign_messages(&messages, &mut tags);
                    assert_eq!(tags[place][..expected.len()], expected, "{integrity} {engine:?} {place} of {count}");
                }
            }
        }
    }

    fn check_sha2(key: &[u8], message: &[u8], expected: [&str; 3]) {
        for (integrity, expected) in [Integrity::Sha256, Integrity::Sha384, Integrity::Sha512].into_iter().zip(expected)
        {
            check(integrity, key, message, expected);
        }
    }

    #[test]
    fn hmac_sha1_agrees_with_rfc_2202() {
        // RFC 2202 §3, cases 1, 2, 3, 6 and 7
        let sha1 = Integrity::Sha1;
        check(sha1, &[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00");
        check(sha1, b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        check(sha1, &[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3");
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        check(sha1, &[0xaa; 80], message, "aa4ae5e15272d00e95705637ce8a3b55ed402112");
        let message = b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data";
        check(sha1, &[0xaa; 80], message, "e8e99d0f45237d786d6bbaa7965c7808bbff1a91");
    }

    #[test]
    fn hmac_sha2_agrees_with_rfc_4231() {
        // RFC 4231 §4.2, §4.3, §4.4 and §4.8
        check_sha2(
            &[0x0b; 20],
            b"Hi There",
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        );
        check_sha2(
            b"Jefe",
            b"what do ya want for nothing?",
            [
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        );
        check_sha2(
            &[0xaa; 20],
            &[0xdd; 50],
            [
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
                 bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        );
        check_sha2(
            &[0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. \
              The key needs to be hashed before being used by the HMAC algorithm.",
            [
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944\
                 b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ],
        );
    }

    /// The plain hash of `message`, by every engine, in the last of `count` lanes.
    fn check_hash<const B: usize, H: Hash<B>>(message: &[u8], expected: &str) {
        for engine in Engine::available() {
            for count in [1, 2, 16] {
                let mut states = vec![H::INITIAL; count];
                let mut messages = vec![Message::new(b"another", &[], 0); count];
                messages[count - 1] = Message::new(message, &[], 0);
                H::advance(engine.many(), &mut states, &messages);
                assert_eq!(H::digest(&states[count - 1])[..H::LEN], hex(expected), "{engine:?}");
            }
        }
    }

    #[test]
    fn hashes_agree_with_the_examples_of_nist() {
        // FIPS 180-2 App. A to C and the examples of NIST's Cryptographic Toolkit
        check_hash::<64, Sha1>(b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
        check_hash::<64, Sha256>(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        check_hash::<64, Sha1>(two_blocks, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        check_hash::<64, Sha256>(two_blocks, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        check_hash::<128, Sha384>(
            b"abc",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        );
        check_hash::<128, Sha512>(
            b"abc",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        );
        let two_blocks = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
                           hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        check_hash::<128, Sha512>(
            two_blocks,
            "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018\
             501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909",
        );
    }

    #[test]
    fn the_padding_begins_a_block_where_it_must() {
        for (len, blocks) in [(0, 1), (55, 1), (56, 2), (63, 2), (64, 2), (119, 2), (120, 3)] {
            assert_eq!(Message::<64>::new(&vec![1; len], &[], 0).len(), blocks, "{len}");
        }
        for (len, blocks) in [(0, 1), (111, 1), (112, 2), (127, 2), (128, 2), (239, 2), (240, 3)] {
            assert_eq!(Message::<128>::new(&vec![1; len], &[], 0).len(), blocks, "{len}");
        }
    }
}
