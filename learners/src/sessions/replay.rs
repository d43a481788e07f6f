//! Logged turns as rows that networks are trained on, and what all the learners share.

use burn::optim::AdamW;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use weir_policy_runtime::{Mlp, MlpScratch};

use super::config::SessionLearnerConfig;
use super::policy::Imitated;
use super::trajectory::SessionLog;
use crate::backend::{Device, Train};
use crate::error::Result;
use crate::network::{Inputs, Network, adamw};

/// What is added to the score of a forbidden action before a softmax or a maximum.
const FORBIDDEN: f32 = -1e9;

/// Every turn of a log, in order: the turn after row `i` is row `i + 1`, unless the session has ended.
pub(super) struct Replay {
    pub inputs: Inputs,
    pub actions: usize,
    pub action: Vec<usize>,
    pub reward: Vec<f32>,
    pub is_last: Vec<bool>,
    /// 0 where an action is allowed, [`FORBIDDEN`] where it is not; shape `[rows, actions]`.
    pub forbidden: Vec<f32>,
    /// Mean discounted reward from a turn on: where networks start from.
    pub mean_return: f32,
}

impl Replay {
    pub(super) fn new(log: &SessionLog, config: &SessionLearnerConfig) -> Self {
        let turns = log.turns();
        let mut replay = Self {
            inputs: Inputs::new(log.width(), Vec::with_capacity(turns * log.width())),
            actions: log.actions().len(),
            action: Vec::with_capacity(turns),
            reward: Vec::with_capacity(turns),
            is_last: Vec::with_capacity(turns),
            forbidden: Vec::with_capacity(turns * log.actions().len()),
            mean_return: 0.0,
        };
        let mut returns = 0.0;
        for session in log.trajectories() {
            let completion = if session.completed { config.completion_worth } else { 0.0 };
            for (turn, found) in session.turns.iter().enumerate() {
                let is_last = turn + 1 == session.turns.len();
                replay.inputs.values.extend_from_slice(&found.state);
                replay.action.push(found.action);
                replay.reward.push((found.reward + if is_last { completion } else { 0.0 }) as f32);
                replay.is_last.push(is_last);
                replay.forbidden.extend(found.allowed.iter().map(|allowed| if *allowed { 0.0 } else { FORBIDDEN }));
            }
            let first = replay.reward.len() - session.turns.len();
            let later = |sum: f64, reward: &f32| {
                let sum = f64::from(*reward) + config.discount * sum;
                returns += sum;
                sum
            };
            replay.reward[first..].iter().rev().fold(0.0, later);
        }
        replay.mean_return = (returns / turns.max(1) as f64) as f32;
        replay
    }

    pub(super) fn rows(&self) -> usize {
        self.action.len()
    }

    /// Rows of a step, drawn with replacement.
    pub(super) fn batch(&self, rows: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        (0..rows).map(|_| rng.random_range(0..self.rows())).collect()
    }

    /// The row after each: the same row at the end of a session, where nothing is taken from it.
    pub(super) fn next(&self, batch: &[usize]) -> Vec<usize> {
        batch.iter().map(|&row| if self.is_last[row] { row } else { row + 1 }).collect()
    }

    /// `r + γ v(s')`, and `r` at the end of a session.
    pub(super) fn backed_up(&self, batch: &[usize], discount: f64, later: &[f32]) -> Vec<f32> {
        let target = |(row, later): (&usize, &f32)| {
            self.reward[*row] + if self.is_last[*row] { 0.0 } else { discount as f32 * later }
        };
        batch.iter().zip(later).map(target).collect()
    }

    /// One where an action was taken, shape `[rows, actions]`.
    pub(super) fn taken(&self, batch: &[usize], device: &Device) -> Tensor<Train, 2> {
        let mut taken = vec![0.0_f32; batch.len() * self.actions];
        batch.iter().enumerate().for_each(|(at, &row)| taken[at * self.actions + self.action[row]] = 1.0);
        Tensor::from_data(TensorData::new(taken, [batch.len(), self.actions]), device)
    }

    /// What forbids actions, shape `[rows, actions]`.
    pub(super) fn forbids(&self, batch: &[usize], device: &Device) -> Tensor<Train, 2> {
        self.gathered(&self.forbidden, batch, device)
    }

    /// One where an action is allowed, 0 elsewhere, shape `[rows, actions]`.
    pub(super) fn is_allowed(&self, batch: &[usize], device: &Device) -> Tensor<Train, 2> {
        self.forbids(batch, device).equal_elem(0.0).float()
    }

    /// Those rows of `numbers` of shape `[all rows, actions]`, shape `[rows, actions]`.
    pub(super) fn gathered(&self, numbers: &[f32], batch: &[usize], device: &Device) -> Tensor<Train, 2> {
        let rows = batch.iter().flat_map(|row| &numbers[row * self.actions..(row + 1) * self.actions]).copied();
        Tensor::from_data(TensorData::new(rows.collect(), [batch.len(), self.actions]), device)
    }

    /// Also forbids what the log makes too seldom.
    pub(super) fn forbid_rare(&mut self, imitated: &Imitated) {
        let mut scratch = MlpScratch::default();
        let states = self.inputs.values.chunks_exact(self.inputs.width);
        for (state, forbidden) in states.zip(self.forbidden.chunks_exact_mut(self.actions)) {
            let allowed: Vec<bool> = forbidden.iter().map(|number| *number == 0.0).collect();
            let often = imitated.allows(state, &allowed, &mut scratch);
            forbidden.iter_mut().zip(often).for_each(|(number, often)| *number = if often { 0.0 } else { FORBIDDEN });
        }
    }

    /// The best allowed action of each row by `scores` of shape `[rows, actions]`.
    pub(super) fn best(&self, batch: &[usize], scores: &[f32]) -> Vec<usize> {
        let best = |(row, scores): (&usize, &[f32])| {
            let forbidden = &self.forbidden[row * self.actions..(row + 1) * self.actions];
            let score = |action: usize| scores[action] + forbidden[action];
            (1..self.actions).fold(0, |best, action| if score(action) > score(best) { action } else { best })
        };
        batch.iter().zip(scores.chunks_exact(self.actions)).map(best).collect()
    }

    /// `-mean(w ln π(a|s))` with π the softmax of logits over what is allowed, `[rows, actions]`.
    pub(super) fn weighted_log_loss(
        &self,
        logits: Tensor<Train, 2>,
        batch: &[usize],
        weights: Option<Vec<f32>>,
        device: &Device,
    ) -> Tensor<Train, 1> {
        let chosen = (log_softmax(logits + self.forbids(batch, device), 1) * self.taken(batch, device)).sum_dim(1);
        match weights {
            Some(weights) => (chosen * column(weights, device)).mean().neg(),
            None => chosen.mean().neg(),
        }
    }
}

/// A column of numbers, shape `[rows, 1]`.
pub(super) fn column(numbers: Vec<f32>, device: &Device) -> Tensor<Train, 2> {
    let rows = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [rows, 1]), device)
}

/// `mean(x²)`.
pub(super) fn mean_square(gap: Tensor<Train, 2>) -> Tensor<Train, 1> {
    (gap.clone() * gap).mean()
}

/// A network with its optimiser.
pub(super) struct Learner {
    pub network: Network<Train>,
    optimiser: OptimizerAdaptor<AdamW, Network<Train>, Train>,
}

impl Learner {
    /// A network from `inputs` numbers to as many outputs as `start` has, which it starts around.
    pub(super) fn new(inputs: usize, start: &[f32], config: &SessionLearnerConfig, rng: &mut ChaCha8Rng) -> Self {
        let network = Network::init(inputs, &config.hidden, start, None, rng);
        Self { network, optimiser: adamw(config.weight_decay).init() }
    }

    /// Goes one step down the loss that `loss` computes with the network.
    pub(super) fn step(&mut self, learning_rate: f64, loss: impl FnOnce(&Network<Train>) -> Tensor<Train, 1>) {
        let value = loss(&self.network);
        self.network = self.network.clone().stepped(&mut self.optimiser, learning_rate, &value);
    }
}

/// Step size of a step: half a cosine from the configured one down to nothing. Loshchilov and Hutter 2017, arXiv 1608.03983.
pub(super) fn step_size(step: usize, steps: usize, config: &SessionLearnerConfig) -> f64 {
    let done = step as f64 / steps.max(1) as f64;
    config.learning_rate * f64::midpoint(1.0, (std::f64::consts::PI * done).cos())
}

/// The network as the runtime scores it.
pub(super) fn runtime(network: &Network<Train>) -> Result<Mlp> {
    crate::network::runtime_network(&network.to_layers()?)
}
