//! From sections to connections: defaults, `also=`, and which of several values counts.
//!
//! strongSwan: `%default` holds for every connection, wherever it stands; a value of the connection itself counts
//! before those of its `also=`, the last `also=` before the earlier ones, and an empty value stands for the default of
//! the program. Sections of one name are one section, and of two values the last counts.
//! Openswan and Libreswan: the same, but the first `also=` counts, `%default` should stand first (it is said when it
//! does not), and a section that stands there twice is an error.

use std::collections::BTreeMap;

use super::Dialect;
use super::keywords::{self, End, Use};
use super::sections::{Kind, Section, Setting};
use crate::diagnostic::{Diagnostic, Place, Report, nearest};

/// A keyword as the model's side calls it, with its side where it has one.
pub(super) type Key = (Option<End>, &'static str);

/// A connection with all that holds for it.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) settings: BTreeMap<Key, Setting>,
    /// Whether another connection has it as its `also=`.
    pub(super) is_template: bool,
}

impl Conn {
    pub(super) fn get(&self, name: &'static str) -> Option<&Setting> {
        self.settings.get(&(None, name)).filter(|setting| !setting.value.is_empty())
    }

    pub(super) fn side(&self, end: End, name: &'static str) -> Option<&Setting> {
        self.settings.get(&(Some(end), name)).filter(|setting| !setting.value.is_empty())
    }
}

/// What a file says once its inheritance is worked out.
pub(super) struct Resolved {
    /// The settings of `config setup`.
    pub(super) setup: BTreeMap<Key, Setting>,
    pub(super) conns: Vec<Conn>,
}

/// How deep `also=` may lead: more is a loop.
const DEEPEST: usize = 32;

pub(super) fn resolve(sections: Vec<Section>, dialect: Dialect, report: &mut Report) -> Resolved {
    let mut setup = BTreeMap::new();
    let mut conns: Vec<Own> = Vec::new();
    for section in sections {
        match section.kind {
            Kind::Ca => report.note(&section.place, "ca sections make no difference: keys are pre-shared here"),
            Kind::Setup => {
                own_settings(&section, dialect, report).settings.into_iter().for_each(|(key, setting)| {
                    setup.insert(key, setting);
                });
            }
            Kind::Conn => add(&mut conns, &section, dialect, report),
        }
    }
    let templates: Vec<String> = conns.iter().flat_map(|conn| &conn.also).map(|also| also.value.clone()).collect();
    let mut resolved = Vec::new();
    let mut lineage = Lineage { all: &conns, dialect, known: BTreeMap::new(), path: Vec::new() };
    for (index, conn) in conns.iter().enumerate().filter(|(_, conn)| conn.name != "%default") {
        let mut settings = BTreeMap::new();
        take_missing(&mut settings, conn);
        for parent in lineage.of(index, report) {
            take_missing(&mut settings, &conns[parent]);
        }
        if let Some(default) = conns.iter().find(|conn| conn.name == "%default") {
            take_missing(&mut settings, default);
        }
        let is_template = templates.contains(&conn.name);
        resolved.push(Conn { name: conn.name.clone(), place: conn.place.clone(), settings, is_template });
    }
    Resolved { setup, conns: resolved }
}

/// A section of its own, before anything is inherited.
struct Own {
    name: String,
    place: Place,
    settings: BTreeMap<Key, Setting>,
    also: Vec<Setting>,
}

fn add(conns: &mut Vec<Own>, section: &Section, dialect: Dialect, report: &mut Report) {
    let own = own_settings(section, dialect, report);
    if section.name == "%default" {
        if let Some(also) = own.also.first() {
            report.error(Diagnostic::at(also.key_place.clone(), "conn %default cannot have also="));
        }
        let late = conns.iter().any(|conn| conn.name != "%default");
        if late && dialect == Dialect::Libreswan {
            report.note(&section.place, "conn %default holds for the connections above it too: it should stand first");
        }
    }
    match conns.iter_mut().find(|conn| conn.name == section.name) {
        None => conns.push(own),
        Some(known) => {
            if dialect == Dialect::Libreswan && section.name != "%default" {
                let message = format!("conn {} stands there twice", section.name);
                let first = format!("the first is at {}:{}", known.place.file, known.place.line);
                report.error(Diagnostic::at(section.place.clone(), message).help(first));
            }
            known.settings.extend(own.settings);
            known.also.extend(own.also);
        }
    }
}

fn own_settings(section: &Section, dialect: Dialect, report: &mut Report) -> Own {
    let mut own =
        Own { name: section.name.clone(), place: section.place.clone(), settings: BTreeMap::new(), also: Vec::new() };
    for setting in &section.settings {
        let lower = setting.key.to_ascii_lowercase();
        if lower == "also" && section.kind == Kind::Conn {
            own.also.push(setting.clone());
            continue;
        }
        // Names that begin so belong to the user (ipsec.conf(5) of Libreswan).
        if lower.starts_with("x-") || lower.starts_with("x_") {
            continue;
        }
        let Some(keyword) = keywords::find(section.kind, &setting.key, dialect) else {
            unknown(section.kind, setting, dialect, report);
            continue;
        };
        if !keyword.is_known_to(dialect) {
            foreign(setting, keyword, dialect, report);
            continue;
        }
        match keyword.usage {
            Use::Idle(why) => {
                report.note(&setting.key_place, format!("{lower} makes no difference here: {why}"));
            }
            Use::Read(name) => {
                let key = (keyword.end, name);
                if own.settings.insert(key, setting.clone()).is_some() && dialect == Dialect::Libreswan {
                    report.note(&setting.key_place, format!("{lower} stands there twice: the last one counts"));
                }
            }
        }
    }
    own
}

fn unknown(kind: Kind, setting: &Setting, dialect: Dialect, report: &mut Report) {
    let names = keywords::names(kind, dialect);
    let mut diagnostic = Diagnostic::at(setting.key_place.clone(), format!("there is no keyword {:?}", setting.key));
    if let Some(name) = nearest(&setting.key, names.iter().map(String::as_str)) {
        diagnostic = diagnostic.help(format!("did you mean {name:?}?"));
    }
    let other = if kind == Kind::Setup { Kind::Conn } else { Kind::Setup };
    if keywords::find(other, &setting.key, dialect).is_some() {
        let place = if other == Kind::Setup { "config setup" } else { "a conn section" };
        diagnostic = diagnostic.help(format!("it belongs into {place}"));
    }
    report.error(diagnostic);
}

/// A keyword that only the other dialect knows: its program would refuse the file or pass the setting over.
fn foreign(setting: &Setting, keyword: keywords::Keyword, dialect: Dialect, report: &mut Report) {
    let owner = keyword.only_dialect().map_or("another program", Dialect::name);
    let message = format!("{} is a keyword of {owner}, but this file is read as {}'s", setting.key, dialect.name());
    let help = format!("a comment `# simplon: dialect={}` would have it read as the other", owner.to_ascii_lowercase());
    report.error(Diagnostic::at(setting.key_place.clone(), message).help(help));
}

/// The sections that each one inherits from, those that count more first.
struct Lineage<'a> {
    all: &'a [Own],
    dialect: Dialect,
    known: BTreeMap<usize, Vec<usize>>,
    path: Vec<usize>,
}

impl Lineage<'_> {
    /// As strongSwan's parser does it: depth first, and of a section that is met several times the last meeting
    /// counts, so that what two parents have in common comes behind both. Each section is worked out once, so that
    /// the time does not grow with the number of ways that lead to it.
    fn of(&mut self, index: usize, report: &mut Report) -> Vec<usize> {
        if let Some(known) = self.known.get(&index) {
            return known.clone();
        }
        self.path.push(index);
        let mut order: Vec<_> = self.all[index].also.iter().collect();
        if self.dialect == Dialect::StrongSwan {
            order.reverse();
        }
        let mut met = Vec::new();
        for also in order.into_iter().filter(|also| !also.value.is_empty() && also.value != "%default") {
            if let Some(parent) = self.parent(also, report) {
                met.push(parent);
                met.extend(self.of(parent, report));
            }
        }
        self.path.pop();
        let mut lineage = Vec::new();
        for (at, parent) in met.iter().enumerate() {
            if !met[at + 1..].contains(parent) {
                lineage.push(*parent);
            }
        }
        self.known.insert(index, lineage.clone());
        lineage
    }

    fn parent(&self, also: &Setting, report: &mut Report) -> Option<usize> {
        let place = also.value_place.clone();
        let Some(parent) = self.all.iter().position(|other| other.name == also.value) else {
            let mut diagnostic = Diagnostic::at(place, format!("there is no conn {}", also.value));
            if let Some(name) = nearest(&also.value, self.all.iter().map(|other| other.name.as_str())) {
                diagnostic = diagnostic.help(format!("did you mean {name}?"));
            }
            report.error(diagnostic);
            return None;
        };
        if self.path.contains(&parent) || self.path.len() >= DEEPEST {
            let trail: Vec<_> = self.path.iter().map(|index| self.all[*index].name.as_str()).collect();
            let message = format!("also= leads in a circle: {} -> {}", trail.join(" -> "), also.value);
            report.error(Diagnostic::at(place, message));
            return None;
        }
        Some(parent)
    }
}

fn take_missing(settings: &mut BTreeMap<Key, Setting>, from: &Own) {
    for (key, setting) in &from.settings {
        settings.entry(*key).or_insert_with(|| setting.clone());
    }
}
