//! Cookies (RFC 7296 §2.6): who asks for state must first show that it receives at the address it sends from.
//! Nothing is kept for it here: the cookie is a keyed hash, and the key changes with time.

use std::net::IpAddr;
use std::time::Duration;

use base::algorithm::Prf;
use base::{Instant, Random, Secret};
use crypto::prf;

/// How long one key makes cookies; for as long again it still checks them.
const ROTATION: Duration = Duration::from_secs(60);

/// The key that makes cookies, and the one before it.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    current: Option<Key>,
    previous: Option<Key>,
}

#[derive(Debug)]
struct Key {
    made_at: Instant,
    secret: Secret,
}

impl Cookies {
    /// The cookie for a first message.
    pub(crate) fn make(&mut self, nonce: &[u8], remote: IpAddr, spi: u64, random: &mut Random, now: Instant) -> Secret {
        if self.current.as_ref().is_none_or(|key| now >= key.made_at + ROTATION) {
            self.previous = self.current.take();
        }
        let key = self.current.get_or_insert_with(|| Key { made_at: now, secret: random.secret(32) });
        key.cookie(nonce, remote, spi)
    }

    /// Whether `cookie` is one that was made for this first message not long ago.
    pub(crate) fn verify(&self, cookie: &[u8], nonce: &[u8], remote: IpAddr, spi: u64, now: Instant) -> bool {
        let claimed = Secret::from(cookie);
        let fresh = |key: &&Key| now < key.made_at + 2 * ROTATION;
        let keys = self.current.iter().chain(&self.previous).filter(fresh);
        keys.map(|key| key.cookie(nonce, remote, spi)).any(|cookie| cookie == claimed)
    }
}

impl Key {
    fn cookie(&self, nonce: &[u8], remote: IpAddr, spi: u64) -> Secret {
        let ip = match remote {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        prf(Prf::Sha256, self.secret.expose(), &[&ip, &spi.to_be_bytes(), nonce])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_own_message_and_a_short_while() {
        let (mut cookies, mut random) = (Cookies::default(), Random::for_test(1));
        let (ip, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let cookie = cookies.make(&[1; 32], ip, 7, &mut random, at(0));
        let good = |cookies: &Cookies, nonce: &[u8], ip, spi, now| cookies.verify(cookie.expose(), nonce, ip, spi, now);
        assert!(good(&cookies, &[1; 32], ip, 7, at(30)));
        assert!(!good(&cookies, &[2; 32], ip, 7, at(30)));
        assert!(!good(&cookies, &[1; 32], other, 7, at(30)));
        assert!(!good(&cookies, &[1; 32], ip, 8, at(30)));
        let newer = cookies.make(&[1; 32], ip, 7, &mut random, at(70));
        assert_ne!(newer, cookie);
        assert!(good(&cookies, &[1; 32], ip, 7, at(119)));
        assert!(!good(&cookies, &[1; 32], ip, 7, at(120)));
    }
}
