//! Published vectors, agreement in every group, and what is refused.

use base::algorithm::{Group, Prf};
use base::{Random, Secret};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};
use proptest::prelude::*;

use super::{Arithmetic, BadPublicValue, KeyPair, Private, arithmetic, modp, primes};
use crate::{hash, hex};

/// The key pair with this private value, given as the vectors print it.
fn key_pair(group: Group, private: &str) -> KeyPair {
    let private = hex(private);
    match arithmetic(group) {
        Arithmetic::Modp(field) => {
            let exponent = modp::Exponent::from_bytes(&private);
            KeyPair { group, public: field.public(&exponent), private: Private::Modp(field, exponent) }
        }
        Arithmetic::Curve(curve) => {
            let (private, public) = curve.key_pair(&private).unwrap();
            KeyPair { group, public, private: Private::Curve(curve, private) }
        }
    }
}

fn exchange(group: Group, private: [&str; 2], public: [&str; 2], shared: &str) {
    let [a, b] = private.map(|p| key_pair(group, p));
    assert_eq!(a.public(), hex(public[0]));
    assert_eq!(b.public(), hex(public[1]));
    assert_eq!(a.agree(b.public()).unwrap().expose(), hex(shared));
    assert_eq!(b.agree(a.public()).unwrap().expose(), hex(shared));
}

#[test]
fn the_curves_agree_with_rfc_5903_and_rfc_7748() {
    // RFC 5903 §8.1
    exchange(
        Group::Ecp256,
        [
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        ],
        [
            "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
             5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        ],
        "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    );
    // RFC 5903 §8.2
    exchange(
        Group::Ecp384,
        [
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
            "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC",
        ],
        [
            "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA
             9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571
             DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
        ],
        "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
    );
    // RFC 5903 §8.3
    exchange(
        Group::Ecp521,
        [
            "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA
             85A30FE1C2952C6771D937BA9777F5957B2639BAB072462F68C27A57382D4A52",
            "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C67
             7D600B343757A3BDBF2A3163E4C2F869CCA7458AA4A4EFFC311F5CB151685EB9",
        ],
        [
            "0015417E84DBF28C0AD3C278713349DC7DF153C897A1891BD98BAB4357C9ECBEE1E3
             BF42E00B8E380AEAE57C2D107564941885942AF5A7F4601723C4195D176CED3E
             017CAE20B6641D2EEB695786D8C946146239D099E18E1D5A514C739D7CB4A10AD8A7
             88015AC405D7799DC75E7B7D5B6CF2261A6A7F1507438BF01BEB6CA3926F9582",
            "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A219B97
             C356436ADC6E95BB0352F6BE64A6C2912D4EF2D0433CED2B6171640012D9460F
             015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D9852077B87220B
             6536C5C408A1D2AEBB8E86D678AE49CB57091F4732296579AB44FCD17F0FC56A",
        ],
        "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D142
         7E73CA4BAA240A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3DDEA",
    );
    // RFC 7748 §6.1
    exchange(
        Group::Curve25519,
        [
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ],
        [
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ],
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    );
}

#[test]
fn the_subgroups_agree_with_rfc_5114() {
    // RFC 5114 App. A.1 to A.3: the private values xA and xB, and the SHA-256 of yA, yB and Z.
    let vectors = [
        (
            Group::Modp1024s160,
            ["B9A3B3AE8FEFC1A2930496507086F8455D48943E", "9392C9F9EB6A7A6A9022F7D83E7223C6835BBDDA"],
            [
                "33bc36bb57958663a8014d9830598b0de00c766f0aca7ec9d486bafe2e84b703",
                "8cb9ce9b3a092b9c436498b2a242751405e00a78da00a9f89eb1126aaf57276b",
                "efaf3f62d608cdbd9ccd679f8f3f010d0883e1fe436840b852be9e5571fe23f3",
            ],
        ),
        (
            Group::Modp2048s224,
            [
                "22E62601DBFFD06708A680F747F361F76D8F4F721A0548E483294B0C",
                "4FF3BC96C7FC6A6D71D3B363800A7CDFEF6FC41B4417EA15353B7590",
            ],
            [
                "149588a0f8b466223d7f41bc948c3a158e5cef1669579d7d985b52dc7778f11e",
                "2aab48359cedc46db91bac808f601f905aebec30795371f34f8fc8d34935b32b",
                "885bb5ebe4da0bd256299131a3f2ecfc683ba48652048c6bb21b7461f29cf49b",
            ],
        ),
        (
            Group::Modp2048s256,
            [
                "0881382CDB87660C6DC13E614938D5B9C8B2F248581CC5E31B35454397FCE50E",
                "7D62A7E3EF36DE617B13D1AFB82C780D83A23BD4EE6705645121F371F546A53D",
            ],
            [
                "ba101a638cd0382ded9814bbf575c26ac8bb2a7e0977ec68ac964ecc4b62a6c4",
                "f6c9bb57f3f682a66969bcf5471b2ba364c834dd833278e09536028d6c72553e",
                "01eb7b326b9093eea16968f04915ea1097194caee5bc657dba57bb69c6b7613d",
            ],
        ),
    ];
    for (group, private, expected) in vectors {
        let [a, b] = private.map(|p| key_pair(group, p));
        let shared = a.agree(b.public()).unwrap();
        assert_eq!(b.agree(a.public()).unwrap(), shared);
        let found = [a.public(), b.public(), shared.expose()].map(|value| hash(Prf::Sha256, &[value]));
        assert_eq!(found, expected.map(hex), "{group}");
    }
}

/// p is a safe prime by the test of Miller and Rabin, and it is the one of the RFC by fingerprint.
fn is_the_safe_prime<const LIMBS: usize>(k: u32, sha256: &str) {
    let p: Uint<LIMBS> = primes::prime(k);
    assert_eq!(hash(Prf::Sha256, &[p.to_be_bytes().as_ref()]), hex(sha256));
    let half = p.shr_vartime(1);
    for n in [p, half] {
        // Both are 3 modulo 4, so that one exponentiation is the whole test.
        let params = FixedMontyParams::new_vartime(Odd::new(n).unwrap());
        let root = FixedMontyForm::new(&Uint::from_u32(3), &params).pow_vartime(&n.shr_vartime(1)).retrieve();
        assert!(root == Uint::ONE || root == n.wrapping_sub(&Uint::ONE), "{} bits", p.bits());
    }
}

#[test]
fn the_primes_are_those_of_rfc_2409_and_rfc_3526() {
    is_the_safe_prime::<12>(149_686, "b52ba6a3026520a6c49d37e4587601801bee500123b3259b6bf03e7cecc3e63d");
    is_the_safe_prime::<16>(129_093, "3f35a3f5f6c4376a744acad409bb22f8d897f949d2311d885adaa890981b67a0");
    is_the_safe_prime::<24>(741_804, "64fcc83ec403930bf18393dbc883ccaa1fbb08ac876f77f7aa99748ca945019b");
    is_the_safe_prime::<32>(124_476, "d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e");
    is_the_safe_prime::<48>(1_690_314, "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c");
    is_the_safe_prime::<64>(240_904, "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33");
    is_the_safe_prime::<96>(929_484, "d1bfe6d0925ce7e4da262b62861514a7755e35831e429f343e7b864848657efd");
    is_the_safe_prime::<128>(4_743_158, "39ab4feab950a3128fb71accb9fc3965d857012e081998a85996e3ea8b3c3bcf");
}

#[test]
fn both_sides_of_every_group_get_the_same_secret() {
    for group in Group::ALL {
        let mut random = Random::for_test(group.id().into());
        let [a, b] = [(); 2].map(|()| KeyPair::generate(group, &mut random));
        assert_eq!(a.public().len(), group.public_len());
        assert_ne!(a.public(), b.public());
        let shared = a.agree(b.public()).unwrap();
        assert_eq!(shared, b.agree(a.public()).unwrap());
        let x_only = matches!(group, Group::Ecp256 | Group::Ecp384 | Group::Ecp521);
        assert_eq!(shared.len(), if x_only { group.public_len() / 2 } else { group.public_len() });
    }
}

#[test]
fn the_same_randomness_gives_the_same_key_pair() {
    for group in Group::ALL {
        let [a, b] = [7, 7].map(|seed| KeyPair::generate(group, &mut Random::for_test(seed)));
        assert_eq!(a.public(), b.public());
    }
}

#[test]
fn a_public_value_of_another_length_is_refused() {
    for group in Group::ALL {
        let pair = KeyPair::generate(group, &mut Random::for_test(1));
        let expected = group.public_len();
        for found in [0, 1, expected - 1, expected + 1, 2000] {
            assert_eq!(pair.agree(&vec![2; found]), Err(BadPublicValue::Length { expected, found }));
        }
    }
}

#[test]
fn zero_one_and_their_like_near_the_prime_are_refused() {
    let groups = [
        (Group::Modp768, primes::prime::<12>(149_686).to_be_bytes().as_ref().to_vec(), Ok(())),
        (Group::Modp1024, primes::prime::<16>(129_093).to_be_bytes().as_ref().to_vec(), Ok(())),
        (Group::Modp8192, primes::prime::<128>(4_743_158).to_be_bytes().as_ref().to_vec(), Ok(())),
        (Group::Modp2048s256, hex(primes::P_2048S256), Err(BadPublicValue::NotInSubgroup)),
    ];
    for (group, prime, next_to_them) in groups {
        let pair = KeyPair::generate(group, &mut Random::for_test(1));
        let small = |n: u8| [vec![0; prime.len() - 1], vec![n]].concat();
        // All of these primes end in a byte of at least 2.
        let below_prime = |n: u8| [&prime[..prime.len() - 1], &[prime[prime.len() - 1] - n]].concat();
        for value in [small(0), small(1), below_prime(0), below_prime(1), vec![0xff; prime.len()]] {
            assert_eq!(pair.agree(&value), Err(BadPublicValue::OutOfRange), "{group}");
        }
        for value in [small(2), below_prime(2)] {
            assert_eq!(pair.agree(&value).map(|_| ()), next_to_them, "{group}");
        }
    }
}

#[test]
fn a_shared_secret_keeps_its_leading_zeros() {
    // With the private value 1 the secret is the peer's value itself.
    let pair = key_pair(Group::Modp1024, "01");
    let mut two = vec![0; 128];
    two[127] = 2;
    assert_eq!(pair.public(), two);
    assert_eq!(pair.agree(&two).unwrap(), Secret::from(two));
}

#[test]
fn a_point_off_the_curve_is_refused() {
    for group in [Group::Ecp256, Group::Ecp384, Group::Ecp521] {
        let pair = KeyPair::generate(group, &mut Random::for_test(1));
        let mut point = KeyPair::generate(group, &mut Random::for_test(2)).public().to_vec();
        *point.last_mut().unwrap() ^= 1;
        assert_eq!(pair.agree(&point), Err(BadPublicValue::NotOnCurve));
        assert_eq!(pair.agree(&vec![0; group.public_len()]), Err(BadPublicValue::NotOnCurve));
        assert_eq!(pair.agree(&vec![0xff; group.public_len()]), Err(BadPublicValue::NotOnCurve));
    }
}

#[test]
fn a_curve25519_value_of_small_order_is_refused() {
    let pair = KeyPair::generate(Group::Curve25519, &mut Random::for_test(1));
    let one = [vec![1], vec![0; 31]].concat();
    // RFC 7748 §6.1 asks for the check; these are points of order 4, 1 and 8 (a list by D. J. Bernstein).
    let order_8 = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    for value in [vec![0; 32], one, order_8] {
        assert_eq!(pair.agree(&value), Err(BadPublicValue::SmallOrder));
    }
}

#[test]
fn debug_output_of_a_key_pair_holds_no_number() {
    let pair = KeyPair::generate(Group::Modp1024, &mut Random::for_test(1));
    assert_eq!(format!("{pair:?}"), "KeyPair(modp1024 {secret})");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The generator's table and the general exponentiation are two ways to one result: an exchange
    /// with the private value 1 shows the public value as the secret.
    #[test]
    fn the_table_of_a_generator_gives_its_powers(seed: u64, which in 0..6_usize) {
        let group = [Group::Modp768, Group::Modp1024, Group::Modp1536, Group::Modp2048,
            Group::Modp1024s160, Group::Modp2048s224][which];
        let generator = key_pair(group, "01");
        let pair = KeyPair::generate(group, &mut Random::for_test(seed));
        let public = Secret::from(pair.public());
        prop_assert_eq!(pair.agree(generator.public()), Ok(public.clone()));
        prop_assert_eq!(generator.agree(pair.public()), Ok(public));
    }

    #[test]
    fn no_public_value_makes_agreement_panic(which in 0..15_usize, seed: u64) {
        let group = Group::ALL[which];
        let pair = KeyPair::generate(group, &mut Random::for_test(1));
        let value = Random::for_test(seed).secret(group.public_len());
        let _ = pair.agree(value.expose());
    }
}

#[test]
fn a_key_pair_that_is_handed_over_agrees_on_the_same_secret() {
    for group in Group::ALL {
        let [own, peer] = [1, 2].map(|seed| KeyPair::generate(group, &mut Random::for_test(seed)));
        let taken = KeyPair::import(group, &own.export()).unwrap();
        assert_eq!(taken.public(), own.public(), "{group}");
        assert_eq!(taken.agree(peer.public()).unwrap(), own.agree(peer.public()).unwrap(), "{group}");
        assert!(KeyPair::import(group, &Secret::from(&[0; 80][..])).is_none());
        assert!(KeyPair::import(group, &Secret::from(&[1; 7][..])).is_none());
    }
}
