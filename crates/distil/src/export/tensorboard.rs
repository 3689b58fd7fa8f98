//! A run as an event file of TensorBoard: TFRecords, each a protocol buffer `Event`.
//!
//! ```text
//! Event    1 wall_time double, 2 step int64, 3 file_version string, 5 summary Summary,
//!          10 source_metadata { 1 writer string }
//! Summary  1 value, repeated: { 1 tag string, 2 simple_value float | 8 tensor, 9 metadata }
//! text     tensor   { 1 dtype = 7 (string), 2 shape { 2 dim { 1 size = 1 } }, 8 string_val },
//!          metadata { 1 plugin_data { 1 plugin_name = "text" }, 4 data_class = 2 (tensor) }
//! ```
//!
//! Definitions: `event.proto`, `summary.proto` and `tensor.proto` in `tensorboard/compat/proto` of
//! <https://github.com/tensorflow/tensorboard>. The first event names the version, `brain.Event:2`.
//! TensorBoard keeps scalars in f32; that is the format's precision, not a choice of ours.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::history::History;
use super::protobuf::Message;
use super::tfrecord;
use crate::record::Record;

/// The file's name: TensorBoard looks for `tfevents` in it. It is always the same, so that a later
/// export of a run that went on replaces the earlier one.
const FILE: &str = "events.out.tfevents.distil";

/// Where the event file of this run belongs in a folder of logs. TensorBoard calls a run by its folder.
pub fn path(logs: &Path, record: &Record) -> PathBuf {
    let name = Path::new(&record.name).components();
    let inside = name.filter(|part| matches!(part, Component::Normal(_)));
    logs.join(inside.collect::<PathBuf>()).join(FILE)
}

/// The event file of this run: the configuration, every number of every step and evaluation, what the
/// student said, and warnings.
pub fn events(record: &Record) -> Vec<u8> {
    let history = History::new(record);
    let mut events = Events::new(history.start());
    let config = toml::to_string(&record.config).unwrap_or_default();
    events.text(history.start(), 0, "config", &indented(&config));
    let columns = history.columns();
    let tags: Vec<String> = columns.iter().map(|column| column.grouped()).collect();
    let said = by_step(&record.samples, |sample| sample.step);
    let warned = by_step(&record.metrics.warnings, |warning| warning.step);
    for row in history.rows() {
        let numbers = columns.iter().zip(&tags).filter_map(|(column, tag)| {
            let value = history.value(&row, column)?;
            Some((tag.as_str(), value as f32))
        });
        events.scalars(row.time, row.step, numbers);
        if let Some(said) = said.get(&row.step) {
            let said = said.iter().map(|sample| {
                let (prompt, response) = (indented(&sample.prompt), indented(&sample.response));
                // Words between the two, or they would be one block of code.
                let end = &sample.finish_reason;
                format!("prompt\n\n{prompt}\n\nresponse ({end})\n\n{response}")
            });
            let said = said.collect::<Vec<_>>().join("\n\n---\n\n");
            events.text(row.time, row.step, "samples", &said);
        }
        for warning in warned.get(&row.step).into_iter().flatten() {
            events.text(row.time, row.step, "warnings", &warning.text);
        }
    }
    events.0
}

/// What belongs to each step, in its order.
fn by_step<T>(all: &[T], step: impl Fn(&T) -> usize) -> BTreeMap<usize, Vec<&T>> {
    let mut found: BTreeMap<usize, Vec<&T>> = BTreeMap::new();
    for one in all {
        found.entry(step(one)).or_default().push(one);
    }
    found
}

/// A text that the dashboard's Markdown leaves as it is: four spaces make code of a line.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// An event file in the making.
struct Events(Vec<u8>);

impl Events {
    fn new(time: f64) -> Self {
        let mut events = Self(Vec::new());
        let writer = Message::default().bytes(1, b"distil");
        let first = Message::default()
            .double(1, time)
            .bytes(3, b"brain.Event:2")
            .message(10, writer);
        events.add(first);
        events
    }

    /// One event with all numbers of a step.
    fn scalars<'t>(
        &mut self,
        time: f64,
        step: usize,
        numbers: impl Iterator<Item = (&'t str, f32)>,
    ) {
        let summary = numbers.fold(Message::default(), |summary, (tag, value)| {
            let value = Message::default().bytes(1, tag.as_bytes()).float(2, value);
            summary.message(1, value)
        });
        self.summary(time, step, summary);
    }

    /// One event with a text, which the dashboard reads as Markdown.
    fn text(&mut self, time: f64, step: usize, tag: &str, text: &str) {
        let one = Message::default().whole(1, 1);
        let shape = Message::default().message(2, one);
        let tensor = Message::default()
            .whole(1, 7)
            .message(2, shape)
            .bytes(8, text.as_bytes());
        let plugin = Message::default().bytes(1, b"text");
        let metadata = Message::default().message(1, plugin).whole(4, 2);
        let value = Message::default()
            .bytes(1, tag.as_bytes())
            .message(8, tensor)
            .message(9, metadata);
        self.summary(time, step, Message::default().message(1, value));
    }

    fn summary(&mut self, time: f64, step: usize, summary: Message) {
        let event = Message::default()
            .double(1, time)
            .whole(2, step as u64)
            .message(5, summary);
        self.add(event);
    }

    fn add(&mut self, event: Message) {
        tfrecord::append(&mut self.0, &event.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;
    use crate::record::Sample;

    /// The same events, written by TensorBoard's own writer (`oracles/tensorboard_events.py`).
    #[test]
    fn the_bytes_are_those_of_tensorboards_own_writer() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/events.out.tfevents.golden"
        );
        let mut events = Events::new(1.7e9);
        events.text(1.7e9, 0, "config", "    [method]\n    name = \"kd\"");
        events.scalars(1.7e9, 0, [("eval/rouge_l", 0.0)].into_iter());
        let numbers = [("train/loss", 2.25), ("phases/teacher", 0.1)];
        events.scalars(1.7e9 + 0.5, 1, numbers.into_iter());
        let numbers = [("train/loss", f32::INFINITY), ("train/rate", -1e-30)];
        events.scalars(1.7e9 + 75.25, 300, numbers.into_iter());
        events.text(1.7e9 + 75.25, 300, "samples", &"é".repeat(100));
        assert!(events.0 == std::fs::read(path).unwrap());
    }

    #[test]
    fn a_run_is_in_a_folder_of_its_own_below_the_logs() {
        let home = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let mut record = record(home.path(), "");
            record.name = name.into();
            path(Path::new("logs"), &record)
        };
        assert_eq!(of("both/1-kd"), Path::new("logs/both/1-kd").join(FILE));
        assert_eq!(of("/"), Path::new("logs").join(FILE));
        assert_eq!(of("../../x"), Path::new("logs/x").join(FILE));
    }

    fn record(home: &Path, metrics: &str) -> Record {
        run(home, "[method]\nname = \"kd\"\n", metrics);
        Record::read(home).unwrap()
    }

    /// Parts of the file in their order; that TensorBoard reads the numbers is the gate's to check.
    #[test]
    fn a_run_has_its_configuration_numbers_samples_and_warnings() {
        let home = tempfile::tempdir().unwrap();
        let sample = "{\"step\":0,\"prompt\":\"Name a fruit.\",\"response\":\"<b>fig\",\
                      \"finish_reason\":\"stop\"}\n";
        std::fs::write(home.path().join("samples.jsonl"), sample).unwrap();
        let record = record(
            home.path(),
            "{\"step\":0,\"eval\":{\"rouge_l\":0.5}}\n{\"step\":1,\"loss\":2.0}\n\
             {\"step\":1,\"warning\":\"short\"}\n",
        );
        let file = String::from_utf8_lossy(&events(&record)).into_owned();
        let place = |part: &str| file.find(part).unwrap_or_else(|| panic!("{part}: {file}"));
        let parts = [
            "brain.Event:2",
            "    name = \"kd\"",
            "eval/rouge_l",
            "prompt\n\n    Name a fruit.\n\nresponse (stop)\n\n    <b>fig",
            "train/loss",
            "warnings",
        ];
        assert!(parts.map(place).is_sorted(), "{file}");
    }

    /// Looking through all samples at each step would be 10¹⁰ looks here.
    #[test]
    fn a_long_run_takes_no_longer_for_its_samples() {
        let home = tempfile::tempdir().unwrap();
        let mut record = record(home.path(), "");
        let lines = (1..=100_000).map(|step| format!("{{\"step\":{step},\"loss\":1.0}}\n"));
        run(home.path(), "", &lines.collect::<String>());
        record.metrics = Record::read(home.path()).unwrap().metrics;
        let sample = |step| Sample {
            step,
            prompt: "p".into(),
            response: "r".into(),
            finish_reason: "stop".into(),
        };
        record.samples = (1..=100_000).map(sample).collect();
        let start = std::time::Instant::now();
        let file = events(&record);
        assert!(start.elapsed().as_secs_f64() < 5.0, "{:?}", start.elapsed());
        assert!(file.len() > 100_000 * 100);
    }
}
