//! The text exposition format 0.0.4 of Prometheus.

use std::fmt::Write;

/// What the numbers of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows while the process runs.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A text of families. All samples of a family stand together, as the format wants it.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    name: &'static str,
}

impl Text {
    /// Begins a family. `help` is a sentence without a full stop.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.name = name;
    }

    /// A sample of the family that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.out.push_str(self.name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if place == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = match value.into() {
            Number::Whole(value) => writeln!(self.out, "{end} {value}"),
            Number::Real(value) => writeln!(self.out, "{end} {value}"),
        };
    }

    /// A family of one sample.
    pub(super) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Number>) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// A value. Whole numbers are written in full: a counter of bytes outgrows the digits of a float.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
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
