//! What the package says of the program must be true: each key of the configuration is in the manual page, and each
//! series of a dashboard or an alert is one that the gateway has.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn every_key_of_the_configuration_is_in_its_manual_page() {
    let book = read("docs/book/configuration.md");
    let toml = book.split("\n## ipsec.conf").next().unwrap();
    let page = read("packaging/man/simplon.toml.5").replace("\\-", "-");
    let rows = toml.lines().filter_map(|line| line.strip_prefix("| `"));
    let keys: Vec<&str> = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`')).collect();
    let keys: BTreeSet<&str> = keys.into_iter().filter(|key| key.starts_with(char::is_alphabetic)).collect();
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("\\fB{key}\\fP")), "simplon.toml(5) does not say what {key} is");
    }
}

/// The names of series in a text.
fn series(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_series = |word: &&str| word.starts_with("simplon_") || word.starts_with("process_");
    words.filter(is_series).filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
}

#[test]
fn dashboards_alerts_and_the_book_speak_of_series_that_there_are() {
    let code = |name| {
        let text = read(&format!("crates/gatewayd/src/metrics/{name}.rs"));
        text.split("#[cfg(test)]").next().unwrap().to_owned()
    };
    let source = ["families", "routing", "process"].map(code).concat();
    let known = series(&source);
    let told = series(&read("docs/book/operations.md"));
    for file in ["packaging/grafana/simplon.json", "packaging/prometheus/simplon.rules.yml"] {
        let unknown: Vec<_> = series(&read(file)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{file}: no such series {unknown:?}");
    }
    assert_eq!(told.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "the book speaks of more");
    assert_eq!(known.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "the book does not speak of these");
}

#[test]
fn the_dashboard_is_json_and_its_panels_have_numbers_of_their_own() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("packaging/grafana/simplon.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len());
}
