//! P-values of "the mean of what these losses were drawn from is above `alpha`".
//!
//! Losses are independent, of one law, and within [0, 1]. A small p-value says that the risk is controlled.

use statrs::function::gamma::ln_gamma;

/// Hoeffding's and Bentkus' inequalities, the better of both: Bates, Angelopoulos, Lei, Malik and Jordan 2021, arXiv 2101.02703, as
/// Angelopoulos, Bates, Candès, Jordan and Lei use it, arXiv 2110.01052, proposition 1. With `R` the mean of `n` losses,
///
/// ```text
/// p = min(1, exp(-n h(min(R, α), α)), e P(Binomial(n, α) <= ⌈n R⌉)),   h(a, b) = a ln(a / b) + (1 - a) ln((1 - a) / (1 - b))
/// ```
///
/// `loss_sum` is `n R`. Nothing is known without losses: 1.
#[must_use]
pub fn hoeffding_bentkus(loss_sum: f64, n: usize, alpha: f64) -> f64 {
    if n == 0 || loss_sum.is_nan() || !(0.0..1.0).contains(&alpha) || alpha == 0.0 {
        return 1.0;
    }
    let count = n as f64;
    let mean = (loss_sum / count).clamp(0.0, 1.0);
    if mean >= alpha {
        return 1.0;
    }
    let hoeffding = (-count * relative_entropy(mean, alpha)).exp();
    let bentkus = std::f64::consts::E * binomial_cdf(loss_sum.max(0.0).ceil(), count, alpha);
    hoeffding.min(bentkus).min(1.0)
}

/// Kullback-Leibler divergence between coins, nats.
fn relative_entropy(a: f64, b: f64) -> f64 {
    let part = |x: f64, y: f64| if x > 0.0 { x * (x / y).ln() } else { 0.0 };
    part(a, b) + part(1.0 - a, 1.0 - b)
}

/// `P(Binomial(n, p) <= k)`, `0 < p < 1`, from the largest term down: below the mean each term is a fraction of the one before.
fn binomial_cdf(k: f64, n: f64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    let ln_choose = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let last = (ln_choose + k * p.ln() + (n - k) * (1.0 - p).ln()).exp();
    let (mut term, mut sum, mut at) = (last, last, k);
    while at > 0.0 && term > sum * 1e-17 {
        term *= at * (1.0 - p) / ((n - at + 1.0) * p);
        sum += term;
        at -= 1.0;
    }
    sum.min(1.0)
}

/// A bettor's wealth against "the mean is above `alpha`": Waudby-Smith and Ramdas 2024, arXiv 2010.09686, section 4, on one side, as
/// arXiv 2101.02703 bounds risks by it. Narrower than Hoeffding-Bentkus where losses vary less than coins would.
///
/// ```text
/// K_i = Π_{j <= i} (1 - ν_j (L_j - α)),   p = min(1, 1 / max_i K_i)
/// ν_j = min(3/4 / (1 - α), √(2 ln(1/δ) / (n σ²_{j-1})))
/// ```
///
/// The bets `ν` know earlier losses only, and a bet never loses more than three quarters, so `K` is a supermartingale that stays above 0
/// while the mean is above `alpha` (Ville). They aim at a level of `delta`; the p-value holds at any. The order of the losses must not
/// depend on them.
#[must_use]
pub fn betting(losses: impl ExactSizeIterator<Item = f64>, alpha: f64, delta: f64) -> f64 {
    const AT_STAKE: f64 = 0.75;
    if !((0.0..1.0).contains(&alpha) && delta > 0.0 && delta < 1.0) {
        return 1.0;
    }
    let aim = 2.0 * (1.0 / delta).ln() / losses.len() as f64;
    let most = AT_STAKE / (1.0 - alpha);
    let (mut ln_wealth, mut ln_most) = (0.0_f64, 0.0_f64);
    // Mean and variance so far, each begun with one half of an observation, as the paper does.
    let (mut sum, mut squares, mut seen) = (0.5, 0.25, 1.0);
    for loss in losses {
        if loss.is_nan() {
            return 1.0;
        }
        let loss = loss.clamp(0.0, 1.0);
        let bet = (aim * seen / squares).sqrt().min(most);
        ln_wealth += (bet * (alpha - loss)).ln_1p();
        ln_most = ln_most.max(ln_wealth);
        seen += 1.0;
        sum += loss;
        squares += (loss - sum / seen).powi(2);
    }
    (-ln_most).exp()
}
