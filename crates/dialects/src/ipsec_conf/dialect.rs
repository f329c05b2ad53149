//! Whose file it is. Both families write `ipsec.conf`, and the same words mean different things to them:
//! `keyexchange=ike` starts IKEv1 with Openswan and IKEv2 with strongSwan; a missing group in `esp=` is no PFS to
//! strongSwan and the group of phase 1 to Openswan.
//!
//! Decided by what only one of them knows: keywords of its own, and its ways to write values. The family with more
//! evidence wins. Where there is none, it is strongSwan's: its keywords are the common ones, and the file is noted as
//! read that way. A comment `# simplon: dialect=strongswan` (or `libreswan`, `openswan`) decides for good.

use super::Dialect;
use super::keywords;
use super::sections::{Kind, Read, Setting};
use crate::diagnostic::{Diagnostic, Report, nearest};

pub(super) fn detect(read: &Read, report: &mut Report) -> Dialect {
    if let Some((name, place)) = &read.pragma {
        let names = ["strongswan", "libreswan", "openswan"];
        match name.as_str() {
            "strongswan" => return Dialect::StrongSwan,
            "libreswan" | "openswan" => return Dialect::Libreswan,
            other => {
                let mut diagnostic = Diagnostic::at(place.clone(), format!("there is no dialect {other:?}"));
                if let Some(name) = nearest(other, names) {
                    diagnostic = diagnostic.help(format!("did you mean {name:?}?"));
                }
                report.error(diagnostic.help("it is one of strongswan, libreswan, openswan"));
            }
        }
    }
    let mut scores = (0u32, 0u32);
    for section in read.sections.iter().filter(|section| section.kind != Kind::Ca) {
        for setting in &section.settings {
            match evidence(section.kind, setting) {
                Some(Dialect::StrongSwan) => scores.0 += 1,
                Some(Dialect::Libreswan) => scores.1 += 1,
                None => {}
            }
        }
    }
    let (strongswan, libreswan) = scores;
    let dialect = if libreswan > strongswan { Dialect::Libreswan } else { Dialect::StrongSwan };
    if strongswan == libreswan
        && let Some(section) = read.sections.first()
    {
        let text = "nothing shows whether this file is strongSwan's or Libreswan's: it is read as strongSwan's (a comment \
                    `# simplon: dialect=libreswan` would have it read as Libreswan's or Openswan's)";
        report.note(&section.place, text);
    }
    dialect
}

/// Whose file a setting speaks for.
fn evidence(kind: Kind, setting: &Setting) -> Option<Dialect> {
    let key = setting.key.to_ascii_lowercase();
    let value = setting.value.to_ascii_lowercase();
    by_value(&key, &value).or_else(|| keywords::find_any(kind, &key)?.only_dialect())
}

fn by_value(key: &str, value: &str) -> Option<Dialect> {
    let swan = Some(Dialect::StrongSwan);
    let libre = Some(Dialect::Libreswan);
    match key {
        "ike" | "esp" if value.contains(';') || value.contains('+') => libre,
        "ike" | "esp" if value.contains('_') || value.split(['-', ',']).any(|word| word.starts_with("dh")) => libre,
        "ike" | "esp" if value.ends_with('!') || value.contains("gcm16") || value.contains("prfsha") => swan,
        "dpdaction" if value == "none" => swan,
        "dpdaction" if value == "restart_by_peer" => libre,
        "auto" if matches!(value, "ondemand" | "keep") => libre,
        "authby" if matches!(value, "psk" | "pubkey") => swan,
        "authby" if value == "rsasig" || value.contains("secret|") => libre,
        // Libreswan knows leftauth= from 3.2x on, but calls a pre-shared key `secret`.
        "leftauth" | "rightauth" if matches!(value, "psk" | "pubkey") || value.starts_with("eap") => swan,
        "leftauth" | "rightauth" if matches!(value, "secret" | "rsasig") => libre,
        "leftsubnet" | "rightsubnet" if value.contains([',', '[']) || value.contains("%dynamic") => swan,
        "keyexchange" if matches!(value, "ikev1" | "ikev2") => swan,
        "mark" if !value.contains('/') => swan,
        _ => None,
    }
}
