//! Who may be explored with, and how much it may cost.
//!
//! Exploration is off until an operator names a tenant and a budget: what exploring may cost it a day, in units of the policy's own
//! utility, as the policy expects it. A decision whose tenant has not been named, whose budget is spent, or whose request is flagged
//! takes what looks best; so does one that would be expected to cost more than is left. What was spent is in the decision log, and a restart reads it back from there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use weir_store::UtcDay;

use super::ask::Ask;
use crate::error::{Failure, Result};

/// Tenants that are not named and have spent something today, at most: beyond them nobody new is explored with, so that invented names
/// neither fill memory nor find budget after budget.
const UNNAMED_MAX: usize = 10_000;

/// Stands for every tenant that is not named, each with a budget of its own.
const ANY: &str = "*";

/// Whose budget a decision is charged to: its tenant's, or that of a slice of it that has one of its own.
#[derive(Debug, Clone, Copy)]
struct Account<'a> {
    tenant: &'a str,
    domain: Option<&'a str>,
}

impl<'a> Account<'a> {
    fn of(ask: &'a Ask) -> Self {
        Self { tenant: ask.tenant(), domain: ask.context.domain.as_deref() }
    }

    /// The name that its spending stands under, and its budget a day; no budget is no exploration.
    fn budget(self, per_day: &HashMap<String, f64>) -> (String, Option<f64>) {
        let slices = self.domain.into_iter().flat_map(|domain| {
            let own = format!("{}/{domain}", self.tenant);
            [(own.clone(), own.clone()), (format!("{ANY}/{domain}"), own)]
        });
        let whole = [(self.tenant.to_owned(), self.tenant.to_owned()), (ANY.to_owned(), self.tenant.to_owned())];
        let named = slices.chain(whole).find_map(|(name, account)| Some((account, Some(*per_day.get(&name)?))));
        named.unwrap_or_else(|| (self.tenant.to_owned(), None))
    }
}

/// Budgets, and what of them is spent today.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    per_day: HashMap<String, f64>,
    day: Option<UtcDay>,
    spent: HashMap<String, f64>,
}

impl Explorer {
    /// From `TENANT=LOSS` or `TENANT/DOMAIN=LOSS`, each.
    pub(super) fn parse(budgets: &[String]) -> Result<Self> {
        let mut per_day = HashMap::new();
        for text in budgets {
            let parsed = text.split_once('=').and_then(|(tenant, loss)| Some((tenant, loss.parse::<f64>().ok()?)));
            let Some((tenant, loss)) =
                parsed.filter(|(tenant, loss)| !tenant.is_empty() && loss.is_finite() && *loss >= 0.0)
            else {
                return Err(Failure::user(format!(
                    "--explore {text} is not TENANT=LOSS or TENANT/DOMAIN=LOSS, a tenant (or *) and what exploring may cost it a day in units of utility"
                )));
            };
            if per_day.insert(tenant.to_owned(), loss).is_some() {
                return Err(Failure::user(format!("--explore names {tenant} twice: give it one budget")));
            }
        }
        Ok(Self { per_day, ..Self::default() })
    }

    /// Takes up what the log says was spent today.
    pub(super) fn recall(&mut self, log: &Path, today: UtcDay) -> Result<()> {
        #[derive(Deserialize)]
        struct Spent {
            decided_ms: i64,
            tenant: Option<String>,
            domain: Option<String>,
            expected_loss: Option<f64>,
        }
        if self.per_day.is_empty() || !log.is_file() {
            return Ok(());
        }
        let unreadable =
            |error| Failure::user(format!("cannot read what exploration has spent from {}: {error}", log.display()));
        let lines = BufReader::new(std::fs::File::open(log).map_err(unreadable)?).split(b'\n');
        for line in lines {
            // A line that a full disk cut off was no decision.
            let Ok(spent) = serde_json::from_slice::<Spent>(&line.map_err(unreadable)?) else { continue };
            if UtcDay::of_ms(spent.decided_ms) == today {
                let tenant = spent.tenant.as_deref().unwrap_or(Ask::NO_TENANT);
                let account = Account { tenant, domain: spent.domain.as_deref() };
                self.book(account, spent.expected_loss.unwrap_or_default(), today);
            }
        }
        Ok(())
    }

    /// What drawing the decision by the policy's own exploration may cost: what is left of the budget, 0 where it is not to be drawn.
    pub(super) fn may_cost(&mut self, ask: &Ask, today: UtcDay) -> f64 {
        if ask.flagged == Some(true) {
            return 0.0;
        }
        self.left(Account::of(ask), today).unwrap_or_default().max(0.0)
    }

    /// Is a request of a slice that is never explored with?
    pub(super) fn forbids(&self, ask: &Ask) -> bool {
        Account::of(ask).budget(&self.per_day).1 == Some(0.0)
    }

    /// The request's domain, if some budget names it.
    pub(super) fn slice<'a>(&self, ask: &'a Ask) -> Option<&'a str> {
        let domain = ask.context.domain.as_deref()?;
        let named = |name: &String| name.rsplit_once('/').is_some_and(|(_, of)| of == domain);
        self.per_day.keys().any(named).then_some(domain)
    }

    /// What is left of an account's budget today; `None` where it has none.
    fn left(&mut self, account: Account<'_>, today: UtcDay) -> Option<f64> {
        self.turn_to(today);
        let (name, budget) = account.budget(&self.per_day);
        let spent = self.spent.get(&name).copied();
        if !self.per_day.contains_key(&name) && spent.is_none() && self.spent.len() >= UNNAMED_MAX {
            return None;
        }
        Some(budget? - spent.unwrap_or_default())
    }

    /// Books what a decision is expected to cost.
    pub(super) fn charge(&mut self, ask: &Ask, expected_loss: f64, today: UtcDay) {
        if expected_loss > 0.0 {
            self.book(Account::of(ask), expected_loss, today);
            events::charged(expected_loss);
        }
    }

    fn book(&mut self, account: Account<'_>, expected_loss: f64, today: UtcDay) {
        self.turn_to(today);
        if expected_loss > 0.0 {
            *self.spent.entry(account.budget(&self.per_day).0).or_default() += expected_loss;
        }
    }

    fn turn_to(&mut self, today: UtcDay) {
        if self.day != Some(today) {
            self.day = Some(today);
            self.spent.clear();
        }
    }
}

/// Counters of exploration, together.
mod events {
    pub(super) fn charged(expected_loss: f64) {
        metrics::counter!("weir_decide_explored_total").increment(1);
        metrics::histogram!("weir_decide_expected_loss").record(expected_loss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Ask {
        Ask::parse(body.as_bytes()).unwrap()
    }

    fn today() -> UtcDay {
        UtcDay::parse("2026-11-30").unwrap()
    }

    #[test]
    fn only_named_tenants_are_explored_with_and_never_on_flagged_requests() {
        let mut explorer = Explorer::parse(&["a=1.5".to_owned()]).unwrap();
        assert!(explorer.may_cost(&ask(r#"{"tenant": "a"}"#), today()) > 0.0);
        assert_eq!(explorer.may_cost(&ask(r#"{"tenant": "a", "flagged": true}"#), today()), 0.0);
        assert_eq!(explorer.may_cost(&ask(r#"{"tenant": "b"}"#), today()), 0.0);
        assert_eq!(Explorer::parse(&[]).unwrap().may_cost(&ask("{}"), today()), 0.0);
    }

    #[test]
    fn a_budget_ends_exploration_until_the_next_day() {
        let mut explorer = Explorer::parse(&["*=1".to_owned()]).unwrap();
        explorer.charge(&ask(r#"{"tenant": "a"}"#), 0.6, today());
        assert!(explorer.may_cost(&ask(r#"{"tenant": "a"}"#), today()) > 0.0);
        explorer.charge(&ask(r#"{"tenant": "a"}"#), 0.6, today());
        assert_eq!(explorer.may_cost(&ask(r#"{"tenant": "a"}"#), today()), 0.0);
        assert!(explorer.may_cost(&ask(r#"{"tenant": "b"}"#), today()) > 0.0, "each has its own");
        let tomorrow = UtcDay::parse("2026-12-01").unwrap();
        assert!(explorer.may_cost(&ask(r#"{"tenant": "a"}"#), tomorrow) > 0.0);
    }

    #[test]
    fn a_slice_may_have_a_budget_of_its_own_or_none_at_all() {
        let mut explorer =
            Explorer::parse(&["a=1".to_owned(), "a/law=0.1".to_owned(), "*/health=0".to_owned()]).unwrap();
        let of = |domain: &str| ask(&format!(r#"{{"tenant": "a", "context": {{"domain": "{domain}"}}}}"#));
        assert_eq!(explorer.may_cost(&of("health"), today()), 0.0);
        assert!(explorer.may_cost(&of("law"), today()) > 0.0);
        explorer.charge(&of("law"), 0.2, today());
        assert_eq!(explorer.may_cost(&of("law"), today()), 0.0, "its own is spent");
        assert!(explorer.may_cost(&of("code"), today()) > 0.0, "the tenant's is not");
        let other = ask(r#"{"tenant": "b", "context": {"domain": "code"}}"#);
        assert_eq!(explorer.may_cost(&other, today()), 0.0);
    }

    #[test]
    fn a_restart_knows_what_was_spent() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("decisions.jsonl");
        let at = today().start_ms() + 1;
        let lines = format!(
            "{{\"decided_ms\":{at},\"tenant\":\"a\",\"expected_loss\":0.7}}\n{{\"decided_ms\":1,\"tenant\":\"a\",\"expected_loss\":9}}\n{{\"decided_ms\":{at},\"tenant\":\"a\",\"exp"
        );
        std::fs::write(&log, lines).unwrap();
        let mut explorer = Explorer::parse(&["a=1".to_owned()]).unwrap();
        explorer.recall(&log, today()).unwrap();
        let left = explorer.left(Account { tenant: "a", domain: None }, today());
        assert!((left.unwrap() - 0.3).abs() < 1e-12);
    }

    #[test]
    fn a_budget_that_is_none_is_refused_with_what_to_write() {
        for text in ["a", "=1", "a=much", "a=-1", "a=inf"] {
            assert!(Explorer::parse(&[text.to_owned()]).unwrap_err().to_string().contains("TENANT=LOSS"), "{text}");
        }
        let twice = ["*=0", "a=1", "*=50"].map(str::to_owned);
        assert!(Explorer::parse(&twice).unwrap_err().to_string().contains("names * twice"));
    }
}
