//! The published estimates of the Open Bandit Pipeline (obp 0.5.7), digit by digit, from its own data.
//!
//! The evaluation policy is its Bernoulli Thompson sampling under the priors of the package, campaign "all": what it would show was
//! drawn 100,000 and 1,000,000 times with seed 12345 (NumPy 2's `RandomState.beta`), and the counts by item and position lie in
//! `open_bandit/`. Figures: obp's quickstart and README.

mod common;

use std::path::Path;

use weir_learners::ope::{EvaluationConfig, Logged, Verdict, evaluate};

use crate::common::no_limits;

/// One impression: item, position from 0, click, logged probability.
struct Impression {
    item: usize,
    position: usize,
    click: f64,
    propensity: f64,
}

fn impressions(file: &Path) -> Vec<Impression> {
    let text = std::fs::read_to_string(file).expect("the data set reads");
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("it has a header").split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).expect(name);
    let [item, position, click, propensity] = ["item_id", "position", "click", "propensity_score"].map(column);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<f64>().expect("a number");
        Impression {
            item: number(item) as usize,
            position: number(position) as usize - 1,
            click: number(click),
            propensity: number(propensity),
        }
    };
    lines.map(row).collect()
}

/// Probability of each item at each position, `[3 item + position]`.
fn thompson(counts: &str, draws: f64) -> Vec<f64> {
    counts
        .split([',', '\n'])
        .filter(|count| !count.is_empty())
        .map(|count| count.parse::<f64>().unwrap() / draws)
        .collect()
}

fn rows(log: &[Impression], target: impl Fn(&Impression) -> f64) -> Vec<Logged> {
    let row = |(cluster, seen): (usize, &Impression)| Logged {
        propensity: seen.propensity,
        reward: seen.click,
        target_probability: target(seen),
        q_hat_logged: 0.0,
        q_hat_policy: 0.0,
        unsupported_mass: None,
        cluster,
    };
    log.iter().enumerate().map(row).collect()
}

fn free() -> EvaluationConfig {
    EvaluationConfig { limits: no_limits(), ..EvaluationConfig::default() }
}

/// IPS and SNIPS.
fn values(rows: &[Logged]) -> (f64, f64) {
    let estimates = evaluate(rows, &free()).estimates.expect("nothing is refused without limits");
    (estimates.ips.value, estimates.snips.value)
}

/// `RandomState(seed).choice(n, n)` of NumPy: MT19937 seeded by one integer (Matsumoto and Nishimura 1998), and draws that are cut to
/// the bits of `n - 1` and drawn again where they exceed it.
fn resample(seed: u32, n: usize) -> Vec<usize> {
    let mut state = [0_u32; 624];
    state[0] = seed;
    for i in 1..624 {
        let before = state[i - 1];
        state[i] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
    }
    let mut at = 624;
    let mut next = || {
        if at == 624 {
            for i in 0..624 {
                let y = (state[i] & 0x8000_0000) | (state[(i + 1) % 624] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                state[i] = state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            at = 0;
        }
        let mut y = state[at];
        at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    };
    let mask = n.next_power_of_two() as u32 - 1;
    (0..n)
        .map(|_| {
            loop {
                let drawn = (next() & mask) as usize;
                if drawn < n {
                    return drawn;
                }
            }
        })
        .collect()
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

#[test]
fn published_estimates_are_reproduced() {
    let Some(folder) = weir_tests::open_bandit() else { return };
    let (random, bts) = (impressions(&folder.join("random.csv")), impressions(&folder.join("bts.csv")));
    let truth = bts.iter().map(|seen| seen.click).sum::<f64>() / bts.len() as f64;
    let earned = random.iter().map(|seen| seen.click).sum::<f64>() / random.len() as f64;
    assert!((truth - 0.0042).abs() < 1e-12);

    // The quickstart: 0.004553, 1.198126 times what was logged.
    let quickstart = thompson(include_str!("open_bandit/bts_all_100000.csv"), 1e5);
    let (ips, snips) = values(&rows(&random, |seen| quickstart[3 * seen.item + seen.position]));
    println!(
        "IPS {ips:.6}, {:.6} times the logged value; SNIPS {snips:.6}; relative errors {:.6}, {:.6}",
        ips / earned,
        (ips - truth).abs() / truth,
        (snips - truth).abs() / truth
    );
    assert_eq!(format!("{ips:.6} {:.6} {snips:.6}", ips / earned), "0.004553 1.198126 0.004776");

    // The README: relative errors over 30 resamples, mean and standard deviation.
    let policy = thompson(include_str!("open_bandit/bts_all_1000000.csv"), 1e6);
    let logged = rows(&random, |seen| policy[3 * seen.item + seen.position]);
    let (mut of_ips, mut of_snips) = (Vec::new(), Vec::new());
    for seed in 0..30 {
        let drawn = resample(seed, logged.len());
        let sample: Vec<Logged> =
            drawn.iter().enumerate().map(|(cluster, index)| Logged { cluster, ..logged[*index] }).collect();
        let (ips, snips) = values(&sample);
        of_ips.push((ips - truth).abs() / truth);
        of_snips.push((snips - truth).abs() / truth);
    }
    let ((ips, ips_deviation), (snips, snips_deviation)) = (mean_and_deviation(&of_ips), mean_and_deviation(&of_snips));
    println!("relative errors: IPS {ips:.6} ({ips_deviation:.6}), SNIPS {snips:.6} ({snips_deviation:.6})");
    assert_eq!(
        format!("{ips:.6} {ips_deviation:.6} {snips:.6} {snips_deviation:.6}"),
        "0.311082 0.311170 0.311795 0.334736"
    );
}

/// The case that must be refused: Thompson sampling hardly ever shows most items to women, and one impression of 10,000 would carry
/// nearly all weight. NumPy, over the same file: IPS 0.007438, SNIPS 0.002373, an effective sample of 2.1, a largest weight of 21,739.
/// The uniform policy's own clicks say 0.0046.
#[test]
fn the_uniform_policy_is_refused_on_logs_of_thompson_sampling() {
    let Some(folder) = weir_tests::open_bandit() else { return };
    let log = rows(&impressions(&folder.join("bts_women.csv")), |_| 1.0 / 46.0);
    let (ips, snips) = values(&log);
    assert_eq!(format!("{ips:.6} {snips:.6}"), "0.007438 0.002373");
    let evaluation = evaluate(&log, &EvaluationConfig::default());
    let support = &evaluation.support;
    assert_eq!(format!("{:.1} {:.0}", support.effective_rows, support.weight_max), "2.1 21739");
    let Verdict::InsufficientSupport { reasons } = &evaluation.verdict else { panic!("{:?}", evaluation.verdict) };
    println!("{}", reasons.join("; "));
    assert!(evaluation.estimates.is_none());
}
