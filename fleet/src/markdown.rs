//! The answer for people.

use std::fmt::Write as _;

use crate::{PoolPlan, Recommendation, Sizing, Topology};

impl Recommendation {
    /// A page of Markdown: the answer, the pools, what it depends on, what it takes for granted.
    pub fn markdown(&self) -> String {
        let mut page = String::new();
        // Writing to a String can't fail.
        self.write_page(&mut page).unwrap_or_default();
        page
    }

    fn write_page(&self, page: &mut String) -> std::fmt::Result {
        let workload = &self.workload;
        let rate = &workload.rate;
        writeln!(page, "# Fleet: {} GPUs{}\n", self.gpus, self.interval_words())?;
        writeln!(
            page,
            "{} of `{}`, {:.2} USD an hour.\n",
            match self.chosen {
                Topology::OnePool => "One pool".to_owned(),
                Topology::TwoPools { boundary_tokens } => format!("Two pools, split at {boundary_tokens} tokens,"),
            },
            self.profile,
            self.usd_per_hour
        )?;
        writeln!(
            page,
            "Workload: {:.0} requests observed, {:.2}/s on average, planned for {:.2}/s (index of dispersion {:.1} over {:.0} s). \
             Mean prompt {:.0} tokens ({:.0} % cached), mean completion {:.0}, output share {:.1} %.\n",
            workload.requests,
            rate.mean_per_s,
            rate.planned_per_s,
            rate.dispersion,
            rate.window_s,
            workload.prompt_tokens_mean,
            100.0 * workload.cached_share,
            workload.completion_tokens_mean,
            100.0 * workload.output_share
        )?;
        writeln!(page, "Objectives: {}.\n", self.objectives())?;
        self.write_pools(page)?;
        writeln!(page, "\n## If an input were different\n\n| change | GPUs |\n|---|---|")?;
        for row in &self.sensitivity {
            let gpus = row.gpus.map_or("none suffices".to_owned(), |gpus| gpus.to_string());
            writeln!(page, "| {} | {gpus} |", row.change)?;
        }
        writeln!(page, "\n## Taken for granted\n")?;
        self.assumptions.iter().try_for_each(|assumption| writeln!(page, "- {assumption}"))
    }

    fn interval_words(&self) -> String {
        self.interval.as_ref().map_or(String::new(), |interval| {
            let end = |gpus: Option<u32>| gpus.map_or("more than can be had".to_owned(), |gpus| gpus.to_string());
            let (low, high) = (end(interval.low_gpus), end(interval.high_gpus));
            format!(" ({:.0} %: {low} to {high})", 100.0 * interval.confidence)
        })
    }

    fn objectives(&self) -> String {
        let objective = |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} within {ms} ms"));
        [
            objective("P99 TTFT", self.slo.ttft_p99_ms),
            objective("P95 TPOT", self.slo.tpot_p95_ms),
            objective("P95 end to end", self.slo.e2e_p95_ms),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
    }

    fn write_pools(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "| pool | GPUs | instances | load | utilisation | TTFT P50 / P95 / P99 ms | TPOT mean / P95 ms | batch | KV use | \
             tok/W | USD/h | one fewer fails on |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        match &self.one_pool {
            Sizing::Plan(plan) => write_pool(page, "one pool", plan)?,
            Sizing::Infeasible(why) => writeln!(page, "| one pool | infeasible: {why} | | | | | | | | | | |")?,
        }
        match &self.two_pools {
            Some(two) => {
                let boundary = two.boundary_tokens;
                write_pool(page, &format!("short, up to {boundary}"), &two.short)?;
                write_pool(page, &format!("long, above {boundary}"), &two.long)?;
                writeln!(
                    page,
                    "\nTwo pools together: {} GPUs, {:.2} tok/W; {:.1} % of requests go to the short pool, {:.1} % to the one \
                     that their length does not belong to.",
                    two.gpus,
                    two.tok_per_watt,
                    100.0 * two.short_share,
                    100.0 * two.misrouted_share
                )
            }
            None => writeln!(page, "\nNo pair of pools keeps the objectives."),
        }
    }
}

fn write_pool(page: &mut String, name: &str, plan: &PoolPlan) -> std::fmt::Result {
    let spares = if plan.spare_instances > 0 { format!(" + {}", plan.spare_instances) } else { String::new() };
    writeln!(
        page,
        "| {name} | {} | {}{spares} | {:.2}/s | {:.0} % | {:.0} / {:.0} / {:.0} | {:.1} / {:.1} | {:.1} | {:.0} % | {:.2} | {:.2} | {} |",
        plan.gpus,
        plan.instances,
        plan.rate_per_s,
        100.0 * plan.utilisation,
        plan.ttft_ms.p50,
        plan.ttft_ms.p95,
        plan.ttft_ms.p99,
        plan.tpot_mean_ms,
        plan.tpot_p95_ms,
        plan.batch,
        100.0 * plan.kv_use,
        plan.tok_per_watt,
        plan.usd_per_hour,
        plan.binding.words()
    )
}
