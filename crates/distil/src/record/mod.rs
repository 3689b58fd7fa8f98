//! A run's folder as it is read: by a report, a dashboard, an export. Nothing here writes.
//!
//! Whatever a run was doing when it stopped, what it left can be read: half a line at the end of a
//! file is the line that was being written, and a line that is not JSON is counted and left out.

mod columns;
mod evaluations;
mod growing;
mod live;
mod metrics;
mod run;

pub use columns::{ColumnWords, column_words};
pub use evaluations::{
    Answer, Answers, Asked, Bucket, ByPosition, EvaluationFile, ExposureBias, Measured, TokenRow,
};
pub use live::{Live, Standing};
pub use metrics::{Evaluated, Metrics, MetricsFile, Warning};
pub use run::{Record, Sample};
