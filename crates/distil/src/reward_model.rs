//! A reward of whole responses: a bounded scalar head on a language model's trunk,
//!   r(x, y) = R · tanh(w · h + b), h the hidden state of the response's last token.
//!
//! Its objectives are functions of the rewards of a few responses. They are differentiated in two
//! steps: the rewards first, then, with the objective's slope in each of them, one backward pass.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use distil_kernels::{AdamW, adamw_step, embedding, to_host};
use distil_model::prune::evenly_spaced;
use distil_model::{Llama, Stored, Tokens};

use crate::config::Train;
use crate::data::batch::{micro_batches, pack};
use crate::data::example::Example;
use crate::error::Result;
use crate::method::network_file;
use crate::method::pass::Tracked;
use crate::score::tokens;
use crate::step::{Gradients, Optimizer};

/// A reward model and its optimiser.
#[derive(Debug)]
pub(crate) struct RewardModel {
    /// The trunk, tracked. Its own head is not used.
    pub(crate) trunk: Llama,
    /// w, and b behind it: [width + 1], untracked.
    head: Tensor<1>,
    moments: [Tensor<1>; 2],
    optimizer: Optimizer,
    settings: Train,
    learning_rate: f64,
    bound: f64,
    updates: u32,
}

impl RewardModel {
    /// On evenly spaced layers of `network`, at most as many as it has; a head of zeros: every
    /// reward is 0.
    ///
    /// # Errors
    /// The layers cannot be taken.
    pub(crate) fn new(
        network: &Llama,
        layers: usize,
        bound: f64,
        learning_rate: f64,
        settings: &Train,
    ) -> Result<Self> {
        let total = network.config().layers;
        let keep = match layers.min(total) {
            1 => vec![0],
            layers => evenly_spaced(total, layers)?,
        };
        let trunk = network.frozen().with_layers(&keep)?.trainable();
        let head = Tensor::zeros([trunk.config().width + 1], &trunk.device());
        Ok(Self {
            optimizer: Optimizer::new(settings, &trunk),
            moments: [head.zeros_like(), head.zeros_like()],
            head,
            trunk,
            settings: settings.clone(),
            learning_rate,
            bound,
            updates: 0,
        })
    }

    /// The reward of each text.
    pub(crate) fn rewards(&self, texts: &[&Example], max_tokens: usize) -> Vec<f64> {
        let (trunk, head) = (self.trunk.frozen(), to_host(self.head.clone()));
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let mut rewards = Vec::with_capacity(texts.len());
        for range in micro_batches(&lengths, max_tokens) {
            let hidden = last_hidden(&trunk, &texts[range], |trunk, tokens, at| {
                to_host(embedding(trunk.hidden(tokens), at))
            });
            let rows = hidden.chunks_exact(trunk.config().width);
            rewards.extend(rows.map(|h| self.bound * preactivation(h, &head).tanh()));
        }
        rewards
    }

    /// The gradient of Σ slopes · r in the trunk and in the head.
    fn gradient(
        &self,
        texts: &[&Example],
        slopes: &[f64],
        max_tokens: usize,
    ) -> (Gradients, Vec<f32>) {
        let width = self.trunk.config().width;
        let (weights, device) = (to_host(self.head.clone()), self.trunk.device());
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let mut gradients = Gradients::default();
        let mut of_head = vec![0.0f32; width + 1];
        for range in micro_batches(&lengths, max_tokens) {
            let hidden = last_hidden(&self.trunk, &texts[range.clone()], Tracked::at);
            let values = to_host(hidden.plain());
            let mut of_hidden = Vec::with_capacity(values.len());
            for (h, slope) in values.chunks_exact(width).zip(&slopes[range]) {
                let squashed = preactivation(h, &weights).tanh();
                let slope = (slope * self.bound * (1.0 - squashed * squashed)) as f32;
                of_hidden.extend(weights[..width].iter().map(|w| slope * w));
                for (sum, h) in of_head.iter_mut().zip(h.iter().chain([&1.0])) {
                    *sum += slope * h;
                }
            }
            // Linear in the hidden states, with the objective's gradient at this point.
            let shape = hidden.hidden.dims();
            let of_hidden = Tensor::from_data(TensorData::new(of_hidden, shape), &device);
            hidden.backward(&self.trunk, 0.0, of_hidden, None, &mut gradients);
        }
        (gradients, of_head)
    }

    /// One AdamW step down Σ slopes · r, the slopes being an objective's derivatives in the rewards
    /// of `texts`. Returns the gradient's norm before clipping; no step is made if that is no
    /// number.
    pub(crate) fn descend(&mut self, texts: &[&Example], slopes: &[f64], max_tokens: usize) -> f64 {
        let (gradients, of_head) = self.gradient(texts, slopes, max_tokens);
        let (width, device) = (self.trunk.config().width, self.trunk.device());
        let square = of_head.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        let norm = (gradients.norm().powi(2) + square).sqrt();
        if !norm.is_finite() {
            return norm;
        }
        let clip = self.settings.clip_norm;
        let scale = match clip > 0.0 && norm > clip {
            true => clip / norm,
            false => 1.0,
        };
        self.updates += 1;
        self.optimizer
            .update(&mut self.trunk, gradients, self.learning_rate, scale);
        let step = AdamW {
            learning_rate: self.learning_rate as f32,
            beta1: self.settings.beta1 as f32,
            beta2: self.settings.beta2 as f32,
            epsilon: self.settings.epsilon as f32,
            weight_decay: 0.0,
            gradient_scale: scale as f32,
            step: self.updates,
        };
        let gradient = Tensor::from_data(TensorData::new(of_head, [width + 1]), &device);
        let [first, second] = self.moments.clone();
        let (head, first, second) = adamw_step(&step, self.head.clone(), gradient, first, second);
        self.head = head;
        self.moments = [first, second];
        norm
    }

    /// Writes the model and its optimiser into a checkpoint's folder.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let more = [
            ("head", &self.head),
            ("head.first", &self.moments[0]),
            ("head.second", &self.moments[1]),
        ];
        let more = more.map(|(name, tensor)| (name.to_owned(), Stored::Vector(tensor.clone())));
        network_file::save(
            &folder.join("reward-model.safetensors"),
            &self.trunk,
            more.into(),
        )?;
        self.optimizer
            .save(&folder.join("reward-optimizer.safetensors"))
    }

    /// Reads what [`RewardModel::save`] wrote, after `updates` updates.
    pub(crate) fn load(&mut self, folder: &Path, updates: u32) -> Result<()> {
        let path = folder.join("reward-model.safetensors");
        let [first, second] = &mut self.moments;
        let mut more = [
            ("head", &mut self.head),
            ("head.first", first),
            ("head.second", second),
        ];
        network_file::load(&path, &mut self.trunk, &mut more)?;
        self.updates = updates;
        let path = folder.join("reward-optimizer.safetensors");
        self.optimizer.load(&path, updates)
    }

    /// Updates made so far.
    pub(crate) fn updates(&self) -> u32 {
        self.updates
    }
}

/// Hidden states of each text's last token, [texts, width], as `read` gives those of tokens at given
/// places.
fn last_hidden<T>(
    trunk: &Llama,
    texts: &[&Example],
    read: impl FnOnce(&Llama, Tokens<'_>, &[u32]) -> T,
) -> T {
    // A packed batch leaves out each sequence's last token, which predicts nothing. Here it is what
    // tells an answer that ended from one that was cut off: a token behind it is left out instead.
    let whole: Vec<Example> = texts
        .iter()
        .map(|text| Example {
            response: text.response.iter().copied().chain([0]).collect(),
            ..(*text).clone()
        })
        .collect();
    let batch = pack(&whole.iter().collect::<Vec<_>>());
    let last: Vec<u32> = batch
        .segments
        .iter()
        .map(|segment| (segment.end as u32).saturating_sub(1))
        .collect();
    read(trunk, tokens(&batch), &last)
}

/// w · h + b.
fn preactivation(hidden: &[f32], head: &[f32]) -> f64 {
    let bias = head.last().map_or(0.0, |&b| f64::from(b));
    let products = hidden.iter().zip(head).map(|(h, w)| f64::from(h * w));
    products.sum::<f64>() + bias
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::objective::bradley_terry::log_likelihood;
    use crate::testing::{moved, tiny_network};

    fn settings() -> Train {
        let text = "student.model = \"hf:a/b\"\ndata.train = \"x.jsonl\"\nmethod.name = \"sft\"\n\
                    train.weight_decay = 0.0\n";
        Config::parse(text, Path::new("run.toml"), &[])
            .unwrap()
            .train
    }

    fn model() -> RewardModel {
        RewardModel::new(&tiny_network(1), 2, 2.0, 0.01, &settings()).unwrap()
    }

    fn texts() -> Vec<Example> {
        (0..6u32)
            .map(|i| Example {
                prompt: vec![3 + i, 4],
                response: (0..=i).map(|t| (5 + 3 * i + 7 * t) % 24).collect(),
                row: 0,
            })
            .collect()
    }

    /// −Σ log σ(r₁ − r₀) over the pairs (0,1), (2,3), (4,5), and its slopes.
    fn preference(rewards: &[f64]) -> (f64, Vec<f64>) {
        let (mut loss, mut slopes) = (0.0, Vec::new());
        for pair in rewards.chunks_exact(2) {
            let (value, slope) = log_likelihood(pair[0] - pair[1], 1.0);
            loss -= value;
            slopes.extend([-slope, slope]);
        }
        (loss, slopes)
    }

    #[test]
    fn it_learns_an_order_and_stays_in_bounds() {
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        let mut model = model();
        let before = preference(&model.rewards(&texts, 1000)).0;
        assert!(
            (before - 3.0 * std::f64::consts::LN_2).abs() < 1e-12,
            "a head of zeros"
        );
        for _ in 0..60 {
            let (_, slopes) = preference(&model.rewards(&texts, 1000));
            assert!(model.descend(&texts, &slopes, 1000).is_finite());
        }
        let rewards = model.rewards(&texts, 1000);
        assert!(
            rewards.chunks(2).all(|pair| pair[0] > pair[1] + 0.5),
            "{rewards:?}"
        );
        assert!(rewards.iter().all(|r| r.abs() <= 2.0));
    }

    /// The last token counts, in responses of one token too: a response that ended and one that was
    /// cut off are two responses.
    #[test]
    fn the_last_token_is_part_of_what_is_rewarded() {
        let mut model = model();
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        for _ in 0..3 {
            let (_, slopes) = preference(&model.rewards(&texts, 1000));
            model.descend(&texts, &slopes, 1000);
        }
        for response in [vec![5, 9, 7], vec![5]] {
            let text = |last| Example {
                prompt: vec![3, 4],
                response: response[1..].iter().copied().chain([last]).collect(),
                row: 0,
            };
            let rewards = model.rewards(&[&text(0), &text(11)], 1000);
            assert!((rewards[0] - rewards[1]).abs() > 1e-6, "{rewards:?}");
        }
    }

    #[test]
    fn micro_batches_change_rewards_by_rounding_only() {
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        let (mut whole, mut split) = (model(), model());
        for _ in 0..3 {
            let (_, slopes) = preference(&whole.rewards(&texts, 1000));
            whole.descend(&texts, &slopes, 1000);
            split.descend(&texts, &slopes, 1);
        }
        let both = whole
            .rewards(&texts, 1000)
            .into_iter()
            .zip(split.rewards(&texts, 5));
        for (a, b) in both {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn every_parameter_of_the_trunk_moves() {
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        let mut model = model();
        // A head of zeros has no gradient to give to the trunk: one step first.
        for _ in 0..2 {
            let (_, slopes) = preference(&model.rewards(&texts, 1000));
            model.descend(&texts, &slopes, 1000);
        }
        let (mut start, mut now) = (tiny_network(1), model.trunk.frozen());
        for ((name, a), (_, b)) in start.parameters().into_iter().zip(now.parameters()) {
            use distil_model::Parameter::{Matrix, Vector};
            let moved = match (a, b) {
                (Vector(a), Vector(b)) => to_host(a.clone()) != to_host(b.clone()),
                (Matrix(a), Matrix(b)) => to_host(a.clone()) != to_host(b.clone()),
                _ => false,
            };
            assert!(moved, "{name}");
        }
    }

    #[test]
    fn a_saved_model_goes_on_with_the_same_bits() {
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        let mut model = model();
        let learn = |model: &mut RewardModel| {
            let (_, slopes) = preference(&model.rewards(&texts, 1000));
            model.descend(&texts, &slopes, 1000);
        };
        learn(&mut model);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let mut again = self::model();
        again.load(folder.path(), model.updates()).unwrap();
        for _ in 0..2 {
            learn(&mut model);
            learn(&mut again);
        }
        assert_eq!(model.rewards(&texts, 1000), again.rewards(&texts, 1000));
    }

    /// Slopes and backward against differences of the objective, in every weight of the head and in
    /// the trunk's last norm.
    #[test]
    fn the_gradient_equals_differences() {
        let texts = texts();
        let texts: Vec<&Example> = texts.iter().collect();
        let mut model = model();
        for _ in 0..3 {
            let (_, slopes) = preference(&model.rewards(&texts, 1000));
            model.descend(&texts, &slopes, 1000);
        }
        let (_, slopes) = preference(&model.rewards(&texts, 1000));
        let (gradients, of_head) = model.gradient(&texts, &slopes, 1000);
        let loss = |model: &RewardModel| preference(&model.rewards(&texts, 1000)).0;
        let close = |name: &str, slope: f64, got: f32| {
            let error = (slope - f64::from(got)).abs();
            assert!(error < 1e-3 * slope.abs().max(0.1), "{name}: {slope} {got}");
        };
        let step = 1e-2f32;
        let head = to_host(model.head.clone());
        for (entry, &got) in of_head.iter().enumerate() {
            let mut at = |by: f32| {
                let mut values = head.clone();
                values[entry] += by;
                let length = values.len();
                let data = TensorData::new(values, [length]);
                model.head = Tensor::from_data(data, &model.trunk.device());
                loss(&model)
            };
            let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
            close("head", slope, got);
        }
        let length = head.len();
        model.head = Tensor::from_data(TensorData::new(head, [length]), &model.trunk.device());
        let names: Vec<String> = model
            .trunk
            .parameters()
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        let index = names.iter().position(|n| n == "model.norm.weight").unwrap();
        let of_norm = gradients.values()[index].clone();
        assert!(of_norm.iter().any(|g| g.abs() > 1e-3));
        for (entry, &got) in of_norm.iter().enumerate() {
            let mut at = |by: f32| {
                let trunk = model.trunk.frozen();
                model.trunk = moved(&trunk, index, entry, by);
                let value = loss(&model);
                model.trunk = trunk;
                value
            };
            let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
            close("norm", slope, got);
        }
    }
}
