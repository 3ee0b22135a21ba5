//! `--set a.b=value`: one key of the config replaced on the command line.

use toml::{Table, Value};

use super::problem::Problem;

/// Puts `--set` arguments into `table`, in their order, and reports those that cannot be.
pub fn apply(table: &mut Table, sets: &[String], problems: &mut Vec<Problem>) {
    for set in sets {
        if let Err(problem) = apply_one(table, set) {
            problems.push(problem);
        }
    }
}

fn apply_one(table: &mut Table, set: &str) -> Result<(), Problem> {
    let right = "write it as --set section.key=value";
    let (path, text) =
        set.split_once('=').ok_or_else(|| Problem::new(format!("--set {set}"), "has no \"=\"", right))?;
    let path = path.trim();
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let Some((last, sections)) = keys.split_last().filter(|_| keys.iter().all(|key| !key.is_empty())) else {
        return Err(Problem::new(format!("--set {set}"), "has an empty key", right));
    };
    let mut section = table;
    for key in sections {
        section =
            section.entry(*key).or_insert_with(|| Value::Table(Table::new())).as_table_mut().ok_or_else(
                || Problem::new(format!("--set {set}"), format!("\"{key}\" is not a section"), right),
            )?;
    }
    section.insert((*last).to_owned(), parse_value(text));
    Ok(())
}

/// A TOML value where the text is one, else the text itself: paths and units need no quotes.
fn parse_value(text: &str) -> Value {
    text.trim().parse().unwrap_or_else(|_| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sets: &[&str]) -> (Table, Vec<Problem>) {
        let mut table: Table = "[host]\nbudget = \"1 GiB\"\n".parse().unwrap();
        let mut problems = Vec::new();
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        apply(&mut table, &sets, &mut problems);
        (table, problems)
    }

    #[test]
    fn values_are_toml_or_else_text() {
        let (table, problems) = after(&[
            "run.steps=7",
            "store.keep=true",
            "host.budget=2 GiB",
            "model.safetensors=../a b.safetensors",
        ]);
        assert_eq!(problems, []);
        assert_eq!(table["run"]["steps"].as_integer(), Some(7));
        assert_eq!(table["store"]["keep"].as_bool(), Some(true));
        assert_eq!(table["host"]["budget"].as_str(), Some("2 GiB"));
        assert_eq!(table["model"]["safetensors"].as_str(), Some("../a b.safetensors"));
    }

    #[test]
    fn lists_and_later_sets_win() {
        let (table, problems) = after(&["store.nvme_path=[\"a\"]", "store.nvme_path=[\"b\", \"c\"]"]);
        assert_eq!(problems, []);
        assert_eq!(table["store"]["nvme_path"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_cannot_be_set_is_a_problem_each() {
        let (_, problems) = after(&["nonsense", "=3", "a..b=3", "host.budget.deep=3"]);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
