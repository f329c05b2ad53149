//! Files as a reader sees them: text by name. The shell brings the disk; a test brings a map.

use std::collections::BTreeMap;

/// Where a reader gets the files from that a configuration names.
pub trait Files {
    /// The text of the file at `path`; why not, in a few words, where there is none.
    fn read(&self, path: &str) -> Result<String, String>;

    /// The existing files that `pattern` names (`*`, `?`, `[a-z]` within the parts of a path), sorted. A path
    /// without wildcards yields itself when the file exists.
    fn glob(&self, pattern: &str) -> Vec<String>;
}

/// Files that exist in memory only.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(BTreeMap<String, String>);

impl MemoryFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more file.
    #[must_use]
    pub fn with(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.insert(path.into(), text.into());
        self
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "there is no such file".to_owned())
    }

    fn glob(&self, pattern: &str) -> Vec<String> {
        self.0.keys().filter(|path| glob_matches(pattern, path)).cloned().collect()
    }
}

/// Whether `path` fits `pattern` as glob(7) says: `*` and `?` do not cross a slash, `[…]` is a set, and a wildcard
/// does not match a leading dot. For implementations of [`Files`].
pub fn glob_matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    patterns.len() == parts.len() && patterns.iter().zip(&parts).all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    if part.starts_with('.') && !pattern.starts_with('.') {
        return pattern == part;
    }
    let (pattern, part): (Vec<char>, Vec<char>) = (pattern.chars().collect(), part.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The last `*` seen and how much of the text it has swallowed: where to resume after a mismatch.
    let mut star: Option<(usize, usize)> = None;
    while t < part.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = one_matches(&pattern, p, part[t]) {
            p = next;
            t += 1;
        } else if let Some((at, swallowed)) = star {
            star = Some((at, swallowed + 1));
            p = at + 1;
            t = swallowed + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Where the pattern goes on behind the one element at `p`, if that element takes `c`.
fn one_matches(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => {
            let Some(len) = pattern[p + 1..].iter().skip(1).position(|&c| c == ']') else {
                return (c == '[').then_some(p + 1);
            };
            let set = &pattern[p + 1..p + 2 + len];
            let (negated, set) = match set {
                ['!' | '^', rest @ ..] => (true, rest),
                set => (false, set),
            };
            (set_holds(set, c) != negated).then_some(p + 3 + len)
        }
        literal => (literal == c).then_some(p + 1),
    }
}

fn set_holds(set: &[char], c: char) -> bool {
    let mut rest = set;
    while let Some((&first, behind)) = rest.split_first() {
        if let ['-', last, behind @ ..] = behind {
            if (first..=*last).contains(&c) {
                return true;
            }
            rest = behind;
        } else if first == c {
            return true;
        } else {
            rest = behind;
        }
    }
    false
}

/// `path` as it is meant in the file `from`: a relative one starts at that file's folder.
pub(crate) fn relative_to(from: &str, path: &str) -> String {
    match from.rsplit_once('/') {
        Some((folder, _)) if !path.starts_with('/') => format!("{folder}/{path}"),
        Some(_) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_a_shell_would() {
        for (pattern, path, expected) in [
            ("/etc/ipsec.d/*.conf", "/etc/ipsec.d/aws.conf", true),
            ("/etc/ipsec.d/*.conf", "/etc/ipsec.d/old/aws.conf", false),
            ("/etc/ipsec.d/*.conf", "/etc/ipsec.d/.hidden.conf", false),
            ("*a*b?", "xaybz", true),
            ("*a*b?", "xayb", false),
            ("t[0-9].conf", "t7.conf", true),
            ("t[!0-9].conf", "t7.conf", false),
            ("t[", "t[", true),
            ("t[]]", "t]", true),
            ("", "", true),
        ] {
            assert_eq!(glob_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_relative_path_starts_at_the_file_that_names_it() {
        assert_eq!(relative_to("/etc/ipsec.conf", "ipsec.d/a"), "/etc/ipsec.d/a");
        assert_eq!(relative_to("ipsec.conf", "a"), "a");
        assert_eq!(relative_to("/etc/ipsec.conf", "/b"), "/b");
    }
}
