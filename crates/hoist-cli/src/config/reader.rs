//! Walks a TOML table key by key, and remembers what was wrong and which keys were asked for.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::problem::Problem;
use super::units;

/// At least this alike (Jaro-Winkler, 0 to 1) before a known key is offered for an unknown one: `device.buget`
/// has 0.98 with `device.budget`, two keys of one section that mean different things about 0.8.
const ALIKE_MIN: f64 = 0.8;

/// Reads keys out of one table; every problem is kept, none ends the reading.
pub struct Reader<'a> {
    table: &'a Table,
    known: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of `table` that goes on from the problems found so far.
    pub fn new(table: &'a Table, problems: Vec<Problem>) -> Self {
        Self { table, known: BTreeSet::new(), problems }
    }

    /// Notes a problem with `key`.
    pub fn problem(&mut self, key: &str, what: impl Into<String>, would_be_right: impl Into<String>) {
        self.problems.push(Problem::new(key, what, would_be_right));
    }

    /// The value of a dotted key; from now on the key is a known one.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.insert(key);
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    /// Makes keys known without reading them.
    pub fn allow(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// What `read` makes of the key's value; a problem when it makes nothing of it; `None` where the key is absent.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        right: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let result = read(value);
        if result.is_none() {
            let shown = value.to_string().replace('\n', " ");
            self.problem(key, format!("{shown} is not right"), format!("would be right: {right}"));
        }
        result
    }

    /// A size in bytes.
    pub fn bytes(&mut self, key: &'static str, example: &str) -> Option<u64> {
        let right = format!("a size with its unit, such as \"{example}\"");
        self.read(key, &right, |value| units::parse_bytes(value.as_str()?))
    }

    /// A size in bytes that has no default: its absence is a problem.
    pub fn bytes_required(&mut self, key: &'static str, example: &str) -> u64 {
        if self.value(key).is_none() {
            self.problem(key, "is missing", format!("would be right: a size, such as \"{example}\""));
        }
        self.bytes(key, example).unwrap_or_default()
    }

    /// A rate in bytes per second.
    pub fn rate(&mut self, key: &'static str) -> Option<u64> {
        let right = "a rate with its unit, such as \"8 GB/s\"";
        self.read(key, right, |value| units::parse_rate(value.as_str()?))
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let right = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &right, |value| u64::try_from(value.as_integer()?).ok().filter(|n| range.contains(n)))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// One of a few names, each with what it stands for. `later` are names that the design has and no code yet.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], later: &[&str]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let right = names.join(" or ");
        if let Some(name) = self.value(key).and_then(Value::as_str).filter(|name| later.contains(name)) {
            self.problem(key, format!("\"{name}\" is not built yet"), format!("would be right: {right}"));
            return None;
        }
        self.read(key, &right, |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|&(_, choice)| choice)
        })
    }

    /// Reports every key of the table that nobody asked for, and gives all problems back.
    pub fn finish(mut self) -> Vec<Problem> {
        let mut unknown = Vec::new();
        collect_unknown(self.table, "", &self.known, &mut unknown);
        for key in unknown {
            let right = match nearest(&key, &self.known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "remove it; config/quickstart.toml shows the keys that there are".to_owned(),
            };
            self.problem(&key, "is not a key that hoist knows", right);
        }
        self.problems
    }
}

/// Leaves of `table` that are not known; a known section that is no table is unknown as a whole.
fn collect_unknown(table: &Table, prefix: &str, known: &BTreeSet<&'static str>, unknown: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if known.contains(key.as_str()) {
            continue;
        }
        match value.as_table() {
            Some(section) if !section.is_empty() => collect_unknown(section, &key, known, unknown),
            Some(_) if known.iter().any(|k| k.starts_with(&format!("{key}."))) => {}
            _ => unknown.push(key),
        }
    }
}

fn nearest(key: &str, known: &BTreeSet<&'static str>) -> Option<&'static str> {
    // Whole keys first; then last parts, for a key that only stands in the wrong section.
    let best = |score: &dyn Fn(&str) -> f64| {
        let scored = known.iter().map(|&candidate| (score(candidate), candidate));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= ALIKE_MIN)
    };
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    best(&|candidate| {
        strsim::jaro_winkler(key, candidate).min(strsim::jaro_winkler(&last(key), &last(candidate)))
    })
    .or_else(|| best(&|candidate| strsim::jaro_winkler(&last(key), &last(candidate))))
    .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_offered() {
        let known = BTreeSet::from(["device.budget", "host.budget", "io.queue_depth", "run.steps"]);
        assert_eq!(nearest("device.buget", &known), Some("device.budget"));
        assert_eq!(nearest("host.bugdet", &known), Some("host.budget"));
        assert_eq!(nearest("queue_dept", &known), Some("io.queue_depth"));
        assert_eq!(nearest("zzz", &known), None);
    }

    #[test]
    fn unknown_leaves_are_found_at_every_depth() {
        let table: Table = "top = 1\n[a]\nb = 1\nc.d = 2\n[empty]\n".parse().unwrap();
        let mut reader = Reader::new(&table, Vec::new());
        assert!(reader.value("a.b").is_some());
        let keys: Vec<String> = reader.finish().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["a.c.d", "empty", "top"]);
    }

    #[test]
    fn a_section_that_is_a_value_is_a_problem() {
        let table: Table = "device = 3\n".parse().unwrap();
        let mut reader = Reader::new(&table, Vec::new());
        assert_eq!(reader.bytes("device.budget", "1 GiB"), None);
        assert_eq!(reader.finish().len(), 1);
    }
}
