//! Published vectors of AES-CBC, by every engine of this machine, in one lane and in many.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use base::algorithm::{Encryption, Integrity};
use lanes::{Engine, Iv, LaneKey, OpenJob, SealJob};

const HEAD: usize = 24;

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn check(encryption: Encryption, key: &str, iv: &str, plain: &[u8], cipher: &str) {
    for engine in Engine::available() {
        let key = LaneKey::with_engine(encryption, Integrity::Sha1, &hex(key), &[7; 20], engine).unwrap();
        let packet = [&[0; 8], &hex(iv)[..], plain, &[0; 12]].concat();
        for count in [1, 5, 16, 32] {
            let mut packets = vec![packet.clone(); count];
            let job = |packet| SealJob { packet, esn_high: None, iv: Iv::Given };
            let mut jobs: Vec<_> = packets.iter_mut().map(Vec::as_mut_slice).map(job).collect();
            key.seal_many(&mut jobs).unwrap();
            let text = HEAD..HEAD + plain.len();
            assert!(packets.iter().all(|packet| packet[text.clone()] == hex(cipher)), "{encryption} {engine:?}");

            let mut jobs: Vec<_> = packets.iter_mut().map(|packet| OpenJob::new(packet, None)).collect();
            key.open_many(&mut jobs);
            assert!(jobs.iter().all(OpenJob::is_verified));
            assert!(packets.iter().all(|packet| packet[text.clone()] == *plain), "{encryption} {engine:?}");
        }
    }
}

#[test]
fn aes_128_agrees_with_rfc_3602() {
    // RFC 3602 §4, cases 1 to 4
    check(
        Encryption::Aes128Cbc,
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        b"Single block msg",
        "e353779c1079aeb82708942dbe77181a",
    );
    check(
        Encryption::Aes128Cbc,
        "c286696d887c9aa0611bbb3e2025a45a",
        "562e17996d093d28ddb3ba695a2e6f58",
        &(0..32).collect::<Vec<u8>>(),
        "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    );
    check(
        Encryption::Aes128Cbc,
        "6c3ea0477630ce21a2ce334aa746c2cd",
        "c782dc4c098c66cbd9cd27d825682c81",
        b"This is a 48-byte message (exactly 3 AES blocks)",
        "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684",
    );
    check(
        Encryption::Aes128Cbc,
        "56e47a38c5598974bc46903dba290349",
        "8ce82eefbea0da3c44699ed7db51b7d9",
        &(0xa0..0xe0).collect::<Vec<u8>>(),
        "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
         35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
    );
}

#[test]
fn aes_192_and_256_agree_with_sp_800_38a() {
    // NIST SP 800-38A F.2.3 and F.2.5
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    check(
        Encryption::Aes192Cbc,
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "000102030405060708090a0b0c0d0e0f",
        &plain,
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a\
         571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
    );
    check(
        Encryption::Aes256Cbc,
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "000102030405060708090a0b0c0d0e0f",
        &plain,
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d\
         39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    );
}
