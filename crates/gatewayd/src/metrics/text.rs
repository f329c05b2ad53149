//! Families of series: written down in the text exposition format 0.0.4 of Prometheus, or kept as they are.

use std::fmt::Write;

/// What the numbers of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows while the process runs.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Series that belong together.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: String,
    /// Labels and value of each.
    pub(crate) samples: Vec<(Vec<(String, String)>, Number)>,
}

#[derive(Debug)]
enum Out {
    Written(String),
    Kept(Vec<Family>),
}

/// A list of families. All samples of a family stand together, as the format wants it.
#[derive(Debug)]
pub(super) struct Text {
    out: Out,
    name: &'static str,
}

impl Default for Text {
    /// To be written down.
    fn default() -> Self {
        Self { out: Out::Written(String::new()), name: "" }
    }
}

impl Text {
    /// To be kept.
    pub(super) const fn kept() -> Self {
        Self { out: Out::Kept(Vec::new()), name: "" }
    }

    /// Begins a family. `help` is a sentence without a full stop.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        match &mut self.out {
            Out::Kept(families) => families.push(Family { name, kind, help: help.to_owned(), samples: Vec::new() }),
            Out::Written(out) => {
                let kind = match kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                };
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
        }
    }

    /// A sample of the family that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        let out = match &mut self.out {
            Out::Written(out) => out,
            Out::Kept(families) => {
                let labels = labels.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect();
                if let Some(family) = families.last_mut() {
                    family.samples.push((labels, value.into()));
                }
                return;
            }
        };
        out.push_str(self.name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let _ = write!(out, "{}{label}=\"", if place == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = match value.into() {
            Number::Whole(value) => writeln!(out, "{end} {value}"),
            Number::Real(value) => writeln!(out, "{end} {value}"),
        };
    }

    /// A family of one sample.
    pub(super) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Number>) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// What was written down.
    pub(super) fn finish(self) -> String {
        match self.out {
            Out::Written(out) => out,
            Out::Kept(_) => String::new(),
        }
    }

    /// What was kept.
    pub(super) fn families(self) -> Vec<Family> {
        match self.out {
            Out::Written(_) => Vec::new(),
            Out::Kept(families) => families,
        }
    }
}

/// A value. Whole numbers are written in full: a counter of bytes outgrows the digits of a float.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_numbers_are_whole() {
        let mut text = Text::default();
        text.family("x_total", Kind::Counter, "What x is");
        text.sample(&[("name", "a\"b\\c\nd"), ("other", "")], u64::MAX);
        text.sample(&[], 0.25);
        text.one("up", Kind::Gauge, "Whether it is up", true);
        let expected = "# HELP x_total What x is\n# TYPE x_total counter\n\
                        x_total{name=\"a\\\"b\\\\c\\nd\",other=\"\"} 18446744073709551615\nx_total 0.25\n\
                        # HELP up Whether it is up\n# TYPE up gauge\nup 1\n";
        assert_eq!(text.finish(), expected);
    }
}
