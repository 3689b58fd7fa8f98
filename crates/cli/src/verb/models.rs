//! `distil models`: the catalogue, and what is in the cache.

use clap::Args;
use distil_model::reference::{cached, catalogue};
use indicatif::HumanBytes;
use serde_json::json;

use crate::output;

/// List the models that have a short name, and those in the cache.
///
/// A model of the catalogue is fetched when it is first used, from the first of its sources that
/// answers. The cache is $DISTIL_CACHE, or the platform's folder for caches.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil models
  distil models --json
  distil generate smollm2-135m-instruct --prompt 'What is a tide?'")]
pub(crate) struct Models {
    /// Print one JSON object a model
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(models: &Models) -> anyhow::Result<()> {
    if models.json {
        for entry in catalogue() {
            let sources: Vec<&str> = entry.sources.iter().map(|s| s.reference).collect();
            output::json(&json!({
                "name": entry.name, "about": entry.about, "licence": entry.licence,
                "sources": sources,
            }))?;
        }
        for model in cached()? {
            output::json(&json!({
                "cached": model.reference, "path": model.path, "bytes": model.bytes,
            }))?;
        }
        return Ok(());
    }
    output::line("Catalogue:")?;
    for entry in catalogue() {
        output::line(format!(
            "  {}\n    {} ({})",
            entry.name, entry.about, entry.licence
        ))?;
        for source in entry.sources {
            output::line(format!("    from {}", source.reference))?;
        }
    }
    let cached = cached()?;
    output::line(match cached.is_empty() {
        true => "\nThe cache is empty.",
        false => "\nIn the cache:",
    })?;
    for model in cached {
        output::line(format!(
            "  {}  {}\n    {}",
            model.reference,
            HumanBytes(model.bytes),
            model.path.display()
        ))?;
    }
    Ok(())
}
