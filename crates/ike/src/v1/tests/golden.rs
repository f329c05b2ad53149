//! An exchange recorded from two strongSwan 5.9 daemons (aes256-sha1-modp1024 and aes128-sha1-modp1024 with PFS; key
//! "cloudneta"): their logs print every intermediate value. The key of AES-256 is longer than SKEYID_e, so its feedback
//! (RFC 2409 App. B) is among them.

use base::Secret;
use base::algorithm::{Encryption, Group, Integrity, Prf};
use sa::{ChildSuite, Spi};

use crate::v1::keys::{Cookies, Exchanged, Iv};
use crate::v1::phase1::{self, Suite};
use crate::wire::v1::{Chain, Padding, SaPayload, encode_raw, exchange, payload};

const MESSAGE_ID: u32 = 3463094506;
/// The SPIs that the initiator and the responder chose.
const SPIS: (Spi, Spi) = (Spi(0x4ea11b37), Spi(0x986417a5));
const SHARED: &str = "\
    c98afe99437ec60be6026ad3dd3ae5985210533fe18ac5d0db41facac248e08d11fd1f3f63f2d02959e38b6acc9c8b08dfd898a05cf4\
    c21e688e73b805885c7218dc75f99abfa7461d027312399f199979ad022ac0cd9782fe05fbdf0d3983c309cc3b439b0e285ee8b96544\
    cdca59ce117b957411f0b160e68b8a30e23033b9";
const SKEYID_D: &str = "5cce5ae136f2b3aa7f3b1b3374da819e6a8a01fd";
const SKEYID_A: &str = "c2eeb2f678fdfaefbd3adae23d2d3c4b45b9ef10";
const KA: &str = "233e5625dd0c3c7331fa3075c5986ab21568bae0a36509b80b16e541dcccc940";
const IV: &str = "594a3de4035ec5c6c2a4654597d28e24";
const PUBLIC_I: &str = "\
    7e3270363d6e2cd11e01d4e4d307c711bcffcfa8d4a4bcec4c0d944a9c0b87bacb8e88db86f6f764ba7c48e1f7852dcfbf4ddc451d67\
    052838832a65c040dd241f98c8b919da9ada9617ee4ee5bf7ff9ef4d6115109bc9ca48a4a7aca6a5cfead91f3cb729d8c97338de5e60\
    01266a2f13ca9a5150f3b6710417c732be8faf55";
const PUBLIC_R: &str = "\
    d149a8b0c9f8a039d6216e06586a212a4d18f216d859c190c35ee9cfb0071e92f4ab1644e7a7d270f36e1d7b72c269a9726b5e9a58a7\
    78cf8aa64458ccd3034900e4267d7c09fa291f05098c174d768138f1520f7106ec5d8dffaad335c9c5a875d52fe69100a076fb999797\
    1fd717bb9c8b7024bf3875c7b0729e2ec3fe4ce5";
const COOKIES: &str = "77ac9e4c55a2906de0d1651b32d46dc6";
const SA: &str = "\
    00000001000000010000002c01010001000000240101000080010007800e0100800200028004000280030001800b0001800c3de0";
const ID_I: &str = "01000000c6336402";
const ID_R: &str = "01000000cb007102";
const HASH_I: &str = "27d7fc4190089d61d00d5fc6a9d5dc0a93887051";
const HASH_R: &str = "a08a372cca1033ee3a9d86c42db6d27ba7211da6";
const NONCE_I: &str = "df0c1bc8d7bf8d5b061d6b3fb7b271a3d193d8620cf0fb8c5f9a9e424ed44bf7";
const NONCE_R: &str = "e44810607a84bea1e8260c670e6d68f96fff38c4d18c3ec99a3787efdd510602";
const MESSAGE_5: &str = "\
    cf7d2ac9a0cbadb5ef1051873e39858a9a11d255aac304def4ab34198007dc44864cb202582648a9587b4b3d02a99ef29ce418e15e2d\
    9584157f31fc3fba9f2179d24b84c2f39261e6d55c853441b277";
const MESSAGE_6: &str = "\
    80e7e2b01d20aa685e3639c43f8ad8bbd772006ea9891b6aab67f334f72047bd0166825645494e102be0178623bfc85f";
const HASH_1: &str = "7101dac69539a2cd38e9ea6795859888ade770b3";
const QUICK_1: &str = "\
    3cdbd70034e5eaac8eb7960bd375e62375ef9b654c9e3ef717eeb2ce278ed9ce237b41eb0050eef9efb5101890f88effde74260190c7\
    ce2c933eec51b0b278c650ee30244b3a673e5b4739bf60c80e22db4def67230b926a7a741a783d182ad33289d1b6292a9f8a94a67bfd\
    500d2a87f18a32011a4f1d5a642fe8d781f47b108c3cba2fc6be02cd177ad9eb6d7fefb3183592066741f96d7392d4270a3d847ec85c\
    45587075bfa468d954941a9f05ef24a05c7895cab549277b1d201b9a6b36fb3cca12abc26968d0a46dfe21d092ae34c69574335929d7\
    728b74b9ee181645c587d93145244a93ac1665f26c8cfd50550951ba4c92af1ada261588a3ac31445de642cb74d5dce82c04cf8807f6\
    63db0d422ccdf556ea3d293289215d1d1a00";
const HASH_2: &str = "fa22f3404b87d10b7822c9b94ab221db5714762a";
const QUICK_2: &str = "\
    43269276d72f1a3a26517feadffe2c69240a21e2e6d1ed664c66385ff0eafc402392262683d7ee9ce0b73edecf0a1d180f0eeb543e08\
    2d2ed3b5499ac3514a56969aceb28f3fbff04f7b7754e893b810e3ebdbbef9a67c54a57ddd326efc87589d38dc18cc81c148ea32fa33\
    4938832f7224f3ec2704a5d509f51763206264ed3e33d8a901985258569a06d51da6fbe780071df40672f66aa44f9ea8f1676d49de55\
    7e0770cb445d5181c2a9a7c060dd72ea91b08793668868f91a6ef55f969d95a4f8e80c63d349a2dea5df436c7ef37a96ae0460ade32c\
    355c9a3268745809674faff911984a6b8998b5d2dc99a817f38d7789669d9f71c8d2113ee064d6afe80724722643595cf000bf62c524\
    dd548df10c40201d57a174bdbd7ff35bd55b";
const HASH_3: &str = "840fe27611d90ba99377f9cc44570fad3343a14f";
const QUICK_SHARED: &str = "\
    4cafadad55235ac2cf4a335484879f3b77be3f802803a06259e12c054f9ab76a1f00f8ac386a6e4c53aa4f1b1f054c1b7ec64ce3d743\
    83a591c6eb5e06617bc098968dde8b17fd92d461882812ccfe2c83dc1c4a8f266f120197262e4527bc90632efb7509485b1c0fb9d7b2\
    45c1bdfbce6e4ad3764debfb9e6290b2e6c48120";
const QUICK_NONCE_I: &str = "02c91d79a2539b3a6b65a1f4761ebfbf2cde72eac86b687674d884ffd035b0ab";
const QUICK_NONCE_R: &str = "3ca101ffa72daa58be861abac482eb4ed133b5a05115505dd289f53d864f03de";
const ENCRYPTION_I: &str = "d16d2c90bff6468d47127c28478692fc";
const ENCRYPTION_R: &str = "12899b812c1574c3a5c8d3fcef8002d7";
const INTEGRITY_I: &str = "5e854ec33cb12e193a47a9d92447c565d6eb561c";
const INTEGRITY_R: &str = "08c4bea6acfca7828cc279c0c936f6a82989b111";

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn recorded() -> Exchanged {
    let cookies = hex(COOKIES);
    let cookie = |at: usize| u64::from_be_bytes(cookies[at..at + 8].try_into().unwrap());
    Exchanged {
        suite: Suite { encryption: Encryption::Aes256Cbc, hash: Prf::Sha1, group: Group::Modp1024 },
        cookies: Cookies { initiator: cookie(0), responder: cookie(8) },
        sa: hex(SA),
        public: (hex(PUBLIC_I), hex(PUBLIC_R)),
        nonces: (hex(NONCE_I), hex(NONCE_R)),
        shared: Secret::from(hex(SHARED)),
    }
}

fn message(exchange: u8, message_id: u32, body: &str) -> Vec<u8> {
    encode_raw(recorded().cookies.header(exchange, message_id), &hex(body))
}

#[test]
fn phase_1_yields_the_recorded_keys_and_hashes() {
    let exchanged = recorded();
    let skeyid = exchanged.with_psk(&Secret::from(&b"cloudneta"[..]));
    let (d, a, encryption) = skeyid.keys.raw();
    assert_eq!((d, a, encryption), (&hex(SKEYID_D)[..], &hex(SKEYID_A)[..], &hex(KA)[..]));
    assert_eq!(exchanged.iv(), Iv::new(&hex(IV), 16));
    assert_eq!(exchanged.proof(&skeyid, true, &hex(ID_I)).expose(), hex(HASH_I));
    assert_eq!(exchanged.proof(&skeyid, false, &hex(ID_R)).expose(), hex(HASH_R));
    let offered = SaPayload::decode(&hex(SA)).unwrap();
    assert_eq!(offered.encode(), hex(SA));
    let proposals = [model::IkeProposal {
        encryption: vec![Encryption::Aes256Cbc],
        integrity: vec![],
        prf: vec![Prf::Sha1],
        groups: vec![Group::Modp1024],
    }];
    assert_eq!(phase1::choose(&offered, &proposals).unwrap().suite, exchanged.suite);
}

#[test]
fn the_recorded_messages_open_one_after_the_other() {
    let exchanged = recorded();
    let keys = exchanged.with_psk(&Secret::from(&b"cloudneta"[..])).keys;
    let (plain, iv) = keys.open(&exchanged.iv(), &message(exchange::MAIN, 0, MESSAGE_5)).unwrap();
    let chain = Chain::decode(payload::ID, &plain, Padding::Encrypted).unwrap();
    assert_eq!((chain.first(payload::ID), chain.first(payload::HASH)), (Some(&hex(ID_I)[..]), Some(&hex(HASH_I)[..])));
    let (plain, last_block) = keys.open(&iv, &message(exchange::MAIN, 0, MESSAGE_6)).unwrap();
    let chain = Chain::decode(payload::ID, &plain, Padding::Encrypted).unwrap();
    assert_eq!((chain.first(payload::ID), chain.first(payload::HASH)), (Some(&hex(ID_R)[..]), Some(&hex(HASH_R)[..])));

    let (id, first_iv) = (MESSAGE_ID.to_be_bytes(), keys.phase2_iv(&last_block, MESSAGE_ID));
    let (plain, iv) = keys.open(&first_iv, &message(exchange::QUICK, MESSAGE_ID, QUICK_1)).unwrap();
    let chain = Chain::decode(payload::HASH, &plain, Padding::Encrypted).unwrap();
    let (hash, covered) = chain.hashed().unwrap();
    assert_eq!(hash, hex(HASH_1));
    assert_eq!(keys.authenticate(&[&id, covered]).expose(), hash);
    assert_eq!(chain.first(payload::NONCE), Some(&hex(QUICK_NONCE_I)[..]));

    let (plain, _) = keys.open(&iv, &message(exchange::QUICK, MESSAGE_ID, QUICK_2)).unwrap();
    let chain = Chain::decode(payload::HASH, &plain, Padding::Encrypted).unwrap();
    let (hash, covered) = chain.hashed().unwrap();
    let (own, peers) = (hex(QUICK_NONCE_I), hex(QUICK_NONCE_R));
    assert_eq!(hash, hex(HASH_2));
    assert_eq!(keys.authenticate(&[&id, &own, covered]).expose(), hash);
    assert_eq!(keys.authenticate(&[&[0], &id, &own, &peers]).expose(), hex(HASH_3));
}

#[test]
fn keymat_is_the_recorded_one_in_both_directions() {
    let keys = recorded().with_psk(&Secret::from(&b"cloudneta"[..])).keys;
    let suite = ChildSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::Sha1), esn: false };
    let nonces = (hex(QUICK_NONCE_I), hex(QUICK_NONCE_R));
    let child = keys.child(suite, Some(&Secret::from(hex(QUICK_SHARED))), SPIS, (&nonces.0, &nonces.1));
    assert_eq!(child.outbound.encryption.expose(), hex(ENCRYPTION_I));
    assert_eq!(child.outbound.integrity.expose(), hex(INTEGRITY_I));
    assert_eq!(child.inbound.encryption.expose(), hex(ENCRYPTION_R));
    assert_eq!(child.inbound.integrity.expose(), hex(INTEGRITY_R));
}
