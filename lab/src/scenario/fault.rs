//! One wrong line in simplon's configuration: the tunnel must not come up, and `simplon status`
//! must name the setting and the line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base::algorithm::{Encryption, Group};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};
use crate::peer::PeerKind;
use crate::ping;
use crate::scenario::play::Run;
use crate::scenario::{Initiator, Options};
use crate::spec::ConnectionSpec;

/// How long simplon may take to know the cause.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is wrong in simplon's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The pre-shared key.
    Psk,
    /// Who we say we are.
    LocalId,
    /// Who the peer must be.
    RemoteId,
    /// The phase 1 proposal.
    Ike,
    /// The phase 2 proposal.
    Esp,
    /// The traffic selectors.
    Selectors,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 6] = [Self::Psk, Self::LocalId, Self::RemoteId, Self::Ike, Self::Esp, Self::Selectors];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::LocalId => "local-id",
            Self::RemoteId => "remote-id",
            Self::Ike => "ike",
            Self::Esp => "esp",
            Self::Selectors => "selectors",
        }
    }

    /// What `simplon status` calls the settings of which one is to be changed.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Psk => &["pre-shared key"],
            // The peer sees a stranger: it may say no more than that it refuses.
            Self::LocalId => &["local identity"],
            Self::RemoteId => &["remote identity"],
            Self::Ike => &["phase 1 proposal"],
            Self::Esp => &["phase 2 proposal"],
            Self::Selectors => &["local traffic selector", "remote traffic selector"],
        }
    }

    /// Puts the fault in.
    pub(crate) fn put_into(self, spec: &mut ConnectionSpec) {
        match self {
            Self::Psk => spec.psk = "not the same key".into(),
            Self::LocalId => spec.local.id = [192, 0, 2, 99].into(),
            Self::RemoteId => spec.remote.id = [192, 0, 2, 98].into(),
            Self::Ike => spec.ike.group = Group::Modp1536,
            Self::Esp => spec.esp.encryption = Encryption::Aes256Cbc,
            Self::Selectors => {
                let elsewhere = ipnet::Ipv4Net::new_assert([10, 99, 0, 0].into(), 16);
                spec.remote.network = elsewhere.into();
            }
        }
    }

    /// Which end has it: simplon's, and the customer's where both are.
    pub(crate) fn end(options: &Options) -> Option<Initiator> {
        match (options.customer, options.cloud) {
            (PeerKind::Simplon, _) => Some(Initiator::Customer),
            (_, PeerKind::Simplon) => Some(Initiator::Cloud),
            (_, _) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .ok_or_else(|| Error::Asked(format!("no fault is called {text:?}: there are {}", known())))
    }
}

impl Run<'_> {
    /// Waits for simplon to name the cause.
    pub(super) fn expect_fault(&mut self, fault: Fault) -> Result<()> {
        let peer = match Fault::end(self.options) {
            Some(Initiator::Cloud) => &mut self.cloud,
            Some(Initiator::Customer) | None => &mut self.customer,
        };
        let mut failure = Value::Null;
        let named = clock::wait_for("a cause in simplon's status", PATIENCE, || {
            if let Some(detail) = peer.as_mut().map(|peer| peer.detail()).transpose()?.flatten() {
                failure = detail["connections"][0]["last_failure"].clone();
            }
            Ok(names(&failure, fault))
        });
        match named {
            Ok(waited) => self.reporter.step(format!("simplon knows the cause after {:.1} s", waited.as_secs_f64())),
            Err(Error::Late { .. }) => {}
            Err(error) => return Err(error),
        }
        let text = |key: &str| failure[key].as_str().unwrap_or("nothing").to_owned();
        self.reporter.check(
            format!("simplon names the {}", fault.settings().join(" or the ")),
            names(&failure, fault),
            format!("{}: {}", text("cause"), text("sentence")),
        );
        let fix = the_fix(&failure, fault);
        let line = fix.and_then(|fix| Some((fix["file"].as_str()?, fix["line"].as_u64()?, fix["text"].as_str()?)));
        let found = line.map_or_else(|| "none".to_owned(), |(file, line, text)| format!("{file}:{line}: {text}"));
        self.reporter.check("simplon names the line to change", line.is_some(), found);
        if matches!(fault, Fault::Ike | Fault::Esp | Fault::Selectors) {
            let offers = |key: &str| failure[key].as_array().map_or(0, Vec::len);
            let found = format!("{} of ours, {} of theirs", offers("ours"), offers("theirs"));
            self.reporter.check("simplon says what it offers", offers("ours") > 0, found);
        }
        // With other selectors, traffic between the two networks is none of simplon's.
        if fault == Fault::Selectors {
            return Ok(());
        }
        let (from, to) = (self.ground.customer.host.clone(), self.ground.cloud.host_address);
        let pings = ping::ping(&from, to, 2, 56)?;
        self.reporter.check("no ping passes", pings.answered == 0, pings.to_string());
        if fault == Fault::Psk && self.options.customer == PeerKind::Simplon {
            let mut said = String::new();
            let own = self.ground.customer.host_address;
            let heard = clock::wait_for("the sender to hear that there is no tunnel", Duration::from_secs(10), || {
                let (held, last) = ping::is_refused(&from, own, to)?;
                said = last;
                Ok(held)
            });
            self.reporter.check("the sender hears that there is no tunnel", heard.is_ok(), said);
        }
        Ok(())
    }
}

fn the_fix(failure: &Value, fault: Fault) -> Option<&Value> {
    let fixes = failure["fixes"].as_array()?;
    fixes.iter().find(|fix| fix["side"] == "ours" && fault.settings().iter().any(|setting| fix["setting"] == *setting))
}

fn names(failure: &Value, fault: Fault) -> bool {
    the_fix(failure, fault).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests_support::spec;

    #[test]
    fn every_fault_changes_the_configuration() {
        for fault in Fault::ALL {
            let mut changed = spec();
            fault.put_into(&mut changed);
            assert_ne!(changed, spec(), "{fault}");
            assert_eq!(fault.name().parse::<Fault>().unwrap(), fault);
        }
    }

    #[test]
    fn a_failure_names_a_fault_by_a_setting_of_ours() {
        let failure = serde_json::json!({ "fixes": [
            { "side": "theirs", "setting": "phase 1 proposal" },
            { "side": "ours", "setting": "pre-shared key", "file": "a", "line": 3, "text": "psk = …" },
        ] });
        assert!(names(&failure, Fault::Psk));
        assert!(!names(&failure, Fault::Ike), "only the peer's");
        assert!(!names(&Value::Null, Fault::Psk));
    }
}
