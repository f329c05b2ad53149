//! Medians, rows of figures, and goals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bench::Part;

/// The median of some rounds, and how far they are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these values; all 0 where there is none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: f64::midpoint(below, above), min: *min, max: *max }
    }

    pub(super) fn shown(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// What the rounds of one row found, by the name of the figure.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    pub(super) fn push(&mut self, figure: &'static str, value: f64) {
        self.0.entry(figure).or_default().push(value);
    }

    /// The latest value of a figure, for whoever watches.
    pub(super) fn last(&self, figure: &str) -> f64 {
        self.0.get(figure).and_then(|values| values.last()).copied().unwrap_or_default()
    }

    pub(super) fn into_row(self, part: Part, case: &str, gateway: &'static str) -> Row {
        let figures = self.0.into_iter().map(|(figure, values)| (figure, Spread::of(values))).collect();
        Row { part, case: case.to_owned(), gateway, with: String::new(), figures }
    }
}

/// What was found of one gateway in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Whose row it is.
    pub part: Part,
    /// What was measured.
    pub case: String,
    /// What was measured there.
    pub gateway: &'static str,
    /// In which of several ways, where there are any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub with: String,
    /// The figures; their names carry their units.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, Spread>,
}

impl Row {
    pub(super) fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|spread| spread.median)
    }
}

/// A figure that is to be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What it is about, with its unit.
    pub what: String,
    /// What is to be reached, in words.
    pub wanted: String,
    /// What was found.
    pub found: f64,
    /// Whether it is enough.
    pub reached: bool,
}

impl Goal {
    pub(super) fn at_least(what: impl Into<String>, wanted: f64, unit: &str, found: f64) -> Self {
        Self { what: what.into(), wanted: format!("at least {wanted}{unit}"), found, reached: found >= wanted }
    }

    pub(super) fn at_most(what: impl Into<String>, wanted: f64, unit: &str, found: f64) -> Self {
        Self { what: what.into(), wanted: format!("at most {wanted}{unit}"), found, reached: found <= wanted }
    }
}

pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn a_row_has_its_figures_beside_its_name() {
        let mut samples = Samples::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|value| samples.push("tcp_mbit", value));
        assert!((samples.last("tcp_mbit") - 2.0).abs() < 1e-9);
        let row = samples.into_row(Part::Data, "a case", "wireguard-go");
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!((&json["gateway"], &json["tcp_mbit"]["median"]), (&"wireguard-go".into(), &2.0.into()));
        assert_eq!((row.median("tcp_mbit"), row.median("else")), (Some(2.0), None));
    }
}
