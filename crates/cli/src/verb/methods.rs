//! `distil methods`: what there is, and everything about one of them.

use clap::Args;
use distil::config::{Key, reference_of};
use distil::method::about::{ABOUT, About, about};

use crate::failure::WrongInput;
use crate::output::{line, wrap};

/// Widest line of running text, in characters.
const WIDTH: usize = 92;

/// List the methods, or explain one of them.
///
/// Of one method: its formula, its hyperparameters with their ranges and defaults, when to choose
/// it, what it costs, and the paper.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil methods
  distil methods dpkd")]
pub(crate) struct Methods {
    /// The method, as in the configuration's method.name
    name: Option<String>,
}

pub(crate) fn run(methods: &Methods) -> anyhow::Result<()> {
    match &methods.name {
        None => {
            let longest = ABOUT.iter().map(|method| method.name.len()).max();
            let column = longest.unwrap_or(0) + 2;
            let indent = " ".repeat(column);
            for method in ABOUT {
                line(format!("{:<column$}{}", method.name, method.title))?;
                line(wrap(method.when, &indent, WIDTH))?;
            }
            line("\n`distil methods NAME` explains one of them.")
        }
        Some(name) => match about(name) {
            Some(method) => explain(method),
            None => {
                let names: Vec<&str> = ABOUT.iter().map(|method| method.name).collect();
                let fix = match name.as_str() {
                    "dpo" | "ipo" | "cpo" | "simpo" => {
                        format!("it is dpkd with loss = \"{name}\": distil methods dpkd")
                    }
                    _ => format!("choose from {}", names.join(", ")),
                };
                Err(WrongInput::new(format!("there is no method `{name}`"), fix).into())
            }
        },
    }
}

fn explain(method: &About) -> anyhow::Result<()> {
    line(format!("{}: {}\n", method.name, method.title))?;
    for formula in method.formula.lines() {
        line(format!("  {formula}"))?;
    }
    line(format!("\nWhen\n{}", wrap(method.when, "  ", WIDTH)))?;
    line(format!("\nCost\n{}", wrap(method.cost, "  ", WIDTH)))?;
    line(format!("\nPaper\n{}", wrap(method.paper, "  ", WIDTH)))?;
    let keys = reference_of(method.name);
    if keys.is_empty() {
        return line("\nIt has no hyperparameters of its own.");
    }
    line("\nHyperparameters")?;
    keys.into_iter().try_for_each(hyperparameter)
}

fn hyperparameter(key: &Key) -> anyhow::Result<()> {
    let allowed = plain(&key.kind.to_string());
    let default = plain(&key.default.to_string());
    line(format!("  {}\n    {allowed}; default {default}", key.path))?;
    line(wrap(&plain(key.help), "    ", WIDTH))
}

/// Without the marks that make code of words in the book.
fn plain(text: &str) -> String {
    text.replace('`', "")
}
