//! `distil prune`: a smaller model out of some layers of a larger one.

use std::path::PathBuf;

use clap::Args;
use distil_model::prune::evenly_spaced;

use crate::progress::Progress;
use crate::{loading, output};

/// Keep some layers of a model: what a student starts from.
///
/// A pruned model says little that makes sense before it is trained. `distil train` prunes by
/// itself if the configuration says so; this verb writes the pruned model to look at.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil prune smollm2-135m-instruct --layers 16 --out student
  distil prune smollm2-135m-instruct --keep 0,1,2,15,28,29 --out student")]
pub(crate) struct Prune {
    /// The model
    model: String,

    /// Keep N evenly spaced layers, the first and the last among them
    #[arg(
        long,
        value_name = "N",
        value_parser = super::at_least_one,
        required_unless_present = "keep",
        conflicts_with = "keep"
    )]
    layers: Option<usize>,

    /// Keep exactly these layers, ascending, counted from 0
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = super::whole::<usize>)]
    keep: Option<Vec<usize>>,

    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(prune: &Prune, progress: &mut Progress) -> anyhow::Result<()> {
    output::check_folder(&prune.out)?;
    let model = loading::model(&prune.model, progress)?;
    let total = model.network.config().layers;
    let keep = match (&prune.keep, prune.layers) {
        (Some(keep), _) => keep.clone(),
        (None, layers) => evenly_spaced(total, layers.unwrap_or(total))?,
    };
    let network = model.network.with_layers(&keep)?;
    let (before, after) = (model.network.size(), network.size());
    model.with_network(network).save(&prune.out)?;
    output::line(format!(
        "{}: layers {} of {total}, {} of {} parameters",
        prune.out.display(),
        keep.iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(","),
        millions(after),
        millions(before),
    ))
}

fn millions(count: usize) -> String {
    format!("{:.1}M", count as f64 / 1e6)
}
