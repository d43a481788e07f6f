//! The registry: content in the store, decisions in a Delta table, state as a fold.
//!
//! An approval passes, in this order: the content's hashes and the signature, that the policy can be scored at all,
//! then the rules of [`RegistryState`] (status, verdict). Operators' own constraints (policy as code: a bundle that
//! breaks a rule cannot go into force) belong between the second and the third: they need the loaded policy, and their
//! outcome must not depend on who else decides at the moment.

mod content;
mod event;
mod rows;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Mutex;
use weir_policy_runtime::{
    Bundle, Policy, PolicyId, REPORT_JSON_FILE, ROUTING_POLICY_KIND, Signature, Standing, Trust,
};
use weir_store::{Advance, Store, StoreError, Table};

pub use content::{read_path, verify_path};
pub use event::{EventKind, POLICY_EVENTS_TABLE, RegistryEvent, Verdict, policy_events_spec};
pub use state::{Decision, PolicyState, RegistryState, Seen, Status};

use crate::views::{Approved, PolicyDetail, PolicyDiff, PolicyList, Proposed, Rejected, RolledBack, Verification};
use crate::{PublisherError, Result, events};
use state::Draft;

/// Name of the position that every decision moves by one.
const APP_ID: &str = "policy/registry";

/// How often a decision is taken again when others come first.
const DECISION_ATTEMPTS: usize = 8;

/// The registry at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Every decision, oldest first.
    pub events: Vec<RegistryEvent>,
    /// What they add up to.
    pub state: RegistryState,
}

/// The policy in force, ready to hand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePolicy {
    /// Its id.
    pub id: PolicyId,
    /// Its content, as a deterministic tar.
    pub tar: Bytes,
    /// Who signed it, if anybody did.
    pub signature: Option<Signature>,
}

/// Milliseconds since the Unix epoch.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where policies are kept and decided on. Cheap to clone; clones share one view of the table.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    trust: Arc<Trust>,
    clock: Clock,
    table: Arc<Mutex<View>>,
}

/// The table, and what was read of it at which version. There is no table before the first decision: reading a
/// registry writes nothing.
struct View {
    store: Store,
    table: Option<Table>,
    read: Option<(i64, Arc<Loaded>)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens the registry of a store. Its table is made by the first decision.
    ///
    /// # Errors
    /// When the table is somebody else's or cannot be read.
    pub async fn open(store: &Store, trust: Trust) -> Result<Self> {
        Self::with_clock(store, trust, Arc::new(system_clock)).await
    }

    /// As [`Registry::open`], with another clock.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub async fn with_clock(store: &Store, trust: Trust, clock: Clock) -> Result<Self> {
        let table = store.existing(POLICY_EVENTS_TABLE).await?;
        let view = View { store: store.clone(), table, read: None };
        Ok(Self { store: store.clone(), trust: Arc::new(trust), clock, table: Arc::new(Mutex::new(view)) })
    }

    /// What this registry insists on before a policy goes into force or is handed out.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Every decision up to now. Reads the table only if it has changed.
    ///
    /// # Errors
    /// When the table cannot be read, or its events contradict each other.
    pub async fn load(&self) -> Result<Arc<Loaded>> {
        let mut view = self.table.lock().await;
        view.load().await
    }

    /// Finds a policy by what a person types; see [`RegistryState::resolve`].
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn resolve(&self, text: &str) -> Result<PolicyId> {
        self.load().await?.state.resolve(text)
    }

    /// Reads a policy's content and signature, every hash checked.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub async fn bundle(&self, id: &PolicyId) -> Result<(Bundle, Option<Signature>)> {
        content::get(&self.store, id).await
    }

    /// Stores a bundle and puts it up for decision. A signature that is given must be one that this registry trusts;
    /// an unsigned bundle can be proposed, and signed by proposing it again. Proposing what is known changes nothing.
    ///
    /// # Errors
    /// When the signature does not hold, the policy cannot be scored, or the store fails.
    pub async fn propose(&self, bundle: &Bundle, signature: Option<&Signature>, actor: &str) -> Result<Proposed> {
        if let Some(signature) = signature {
            self.trust.check(&bundle.id, Some(signature))?;
        }
        check_usable(bundle)?;
        content::put(&self.store, bundle, signature).await?;
        let verdict = Verdict::of_report(bundle.files.get(REPORT_JSON_FILE).map(Vec::as_slice));
        let decision = Decision { actor: actor.to_owned(), ..Decision::default() };
        let name = &bundle.manifest.name;
        let event = self.record(&decision, |state| Ok(state.propose(&bundle.id, name, &verdict))).await?;
        Ok(Proposed { id: bundle.id.clone(), name: name.clone(), verdict, new: event.is_some() })
    }

    /// Puts a policy in force.
    ///
    /// # Errors
    /// When its content or signature does not hold, it cannot be scored, or the rules of [`RegistryState`] forbid it.
    pub async fn approve(&self, id: &PolicyId, decision: &Decision) -> Result<Approved> {
        // First the cheap and clear refusals ("unknown", "already active"), then the content, then for good.
        let seen = self.load().await?;
        seen.state.approve(id, decision)?;
        let standing = self.checked(id).await?.1;
        let seen = seen.state.seen();
        let event = self
            .record(decision, |state| {
                state.expect(&seen)?;
                state.approve(id, decision).map(Some)
            })
            .await?;
        let (previous, forced) = event.map_or((None, false), |event| (event.previous, event.forced));
        Ok(Approved { id: id.clone(), previous, forced, standing })
    }

    /// Turns a policy down.
    ///
    /// # Errors
    /// When it is active, rejected already, or unknown.
    pub async fn reject(&self, id: &PolicyId, decision: &Decision) -> Result<Rejected> {
        self.record(decision, |state| state.reject(id).map(Some)).await?;
        Ok(Rejected { id: id.clone() })
    }

    /// Withdraws `from`, which must be the active policy, and puts the one before it in force again, or none.
    ///
    /// # Errors
    /// When another or none is active, there is no reason, or the policy to go back to does not hold any more.
    pub async fn rollback(&self, from: &PolicyId, decision: &Decision) -> Result<RolledBack> {
        for _ in 0..DECISION_ATTEMPTS {
            let seen = self.load().await?;
            let target = seen.state.rollback(from, decision)?.previous;
            if let Some(target) = &target {
                self.checked(target).await.map_err(|error| PublisherError::no_way_back(target, error))?;
            }
            let event = self
                .record(decision, |state| {
                    let draft = state.rollback(from, decision)?;
                    // Another target (this one was rejected meanwhile) is one that was not checked.
                    Ok((draft.previous == target).then_some(draft))
                })
                .await?;
            if let Some(event) = event {
                return Ok(RolledBack { from: event.policy_id, to: event.previous });
            }
        }
        Err(PublisherError::Contended { attempts: DECISION_ATTEMPTS })
    }

    /// Every policy.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn list(&self) -> Result<PolicyList> {
        Ok(PolicyList::new(&self.load().await?.state))
    }

    /// One policy: lineage, metrics, report, history.
    ///
    /// # Errors
    /// When it is unknown, or its content is damaged.
    pub async fn show(&self, text: &str) -> Result<PolicyDetail> {
        let loaded = self.load().await?;
        self.detail(&loaded, text).await
    }

    pub(crate) async fn detail(&self, loaded: &Loaded, text: &str) -> Result<PolicyDetail> {
        let id = loaded.state.resolve(text)?;
        let (bundle, signature) = self.bundle(&id).await?;
        let standing = self.trust.check(&id, signature.as_ref());
        Ok(PolicyDetail::new(loaded, &bundle, signature.as_ref(), standing))
    }

    /// What differs between two policies.
    ///
    /// # Errors
    /// When either is unknown or damaged.
    pub async fn diff(&self, left: &str, right: &str) -> Result<PolicyDiff> {
        let state = &self.load().await?.state;
        let (left, _) = self.bundle(&state.resolve(left)?).await?;
        let (right, _) = self.bundle(&state.resolve(right)?).await?;
        Ok(PolicyDiff::new(&left, &right))
    }

    /// Checks content and signature of a folder, a tar file, or a stored policy.
    ///
    /// # Errors
    /// When there is no such thing, it is not whole, or not signed as this registry wants it.
    pub async fn verify(&self, path_or_id: &str) -> Result<Verification> {
        let path = Path::new(path_or_id);
        if path.exists() {
            return verify_path(path, &self.trust);
        }
        let id = self.resolve(path_or_id).await?;
        let (bundle, standing) = self.checked(&id).await?;
        Ok(Verification::new(&bundle, standing))
    }

    /// The policy in force as of `loaded`, verified, ready to hand out.
    ///
    /// # Errors
    /// When its content or signature does not hold (any more).
    pub async fn active(&self, loaded: &Loaded) -> Result<Option<ActivePolicy>> {
        let Some(id) = loaded.state.active() else { return Ok(None) };
        let (bundle, signature) = self.bundle(id).await?;
        self.trust.check(id, signature.as_ref())?;
        Ok(Some(ActivePolicy { id: id.clone(), tar: bundle.to_tar().into(), signature }))
    }

    /// A stored policy that is whole, trusted and usable.
    async fn checked(&self, id: &PolicyId) -> Result<(Bundle, Standing)> {
        let (bundle, signature) = self.bundle(id).await?;
        let standing = self.trust.check(id, signature.as_ref())?;
        check_usable(&bundle)?;
        Ok((bundle, standing))
    }

    /// Records what `decide` makes of the newest state; decides again whenever somebody else was faster. `None` when
    /// there was nothing to record.
    async fn record(
        &self,
        decision: &Decision,
        decide: impl Fn(&RegistryState) -> Result<Option<Draft>>,
    ) -> Result<Option<RegistryEvent>> {
        let event_id = format!("{:032x}", rand::random::<u128>());
        let mut view = self.table.lock().await;
        let mut outcome_unknown = None;
        for attempt in 1..=DECISION_ATTEMPTS {
            let loaded = view.load().await?;
            if let Some(ours) = recorded(&loaded, &event_id) {
                return Ok(Some(ours));
            }
            outcome_unknown = None;
            let Some(draft) = decide(&loaded.state)? else { return Ok(None) };
            let event = RegistryEvent {
                sequence: loaded.state.next_sequence(),
                event_id: event_id.clone(),
                event_ms: (self.clock)(),
                policy_id: draft.policy_id,
                policy_name: draft.policy_name,
                event: draft.event,
                actor: decision.actor.clone(),
                reason: decision.reason.clone(),
                previous: draft.previous,
                verdict: draft.verdict,
                forced: draft.forced,
            };
            let advance = Advance { app_id: APP_ID.to_owned(), expected: loaded.state.sequence, next: event.sequence };
            match view.for_writing().await?.commit(vec![event::to_batch(&event)?], vec![advance]).await {
                Ok(_) => {
                    events::decided(&event);
                    return Ok(Some(event));
                }
                Err(StoreError::Fenced { .. } | StoreError::Contended { .. }) => events::decision_retried(attempt),
                Err(error @ StoreError::OutcomeUnknown { .. }) => {
                    events::decision_retried(attempt);
                    outcome_unknown = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match outcome_unknown {
            // The last attempt may have landed: look once more, and never call that "others were faster".
            Some(unknown) => recorded(&*view.load().await?, &event_id).map(Some).ok_or_else(|| unknown.into()),
            None => Err(PublisherError::Contended { attempts: DECISION_ATTEMPTS }),
        }
    }
}

/// The event of this id, if it landed: a commit's outcome may be told to nobody.
fn recorded(loaded: &Loaded, event_id: &str) -> Option<RegistryEvent> {
    loaded.events.iter().rev().find(|event| event.event_id == event_id).cloned()
}

impl View {
    async fn load(&mut self) -> Result<Arc<Loaded>> {
        if self.table.is_none() {
            self.table = self.store.existing(POLICY_EVENTS_TABLE).await?;
        }
        let Some(table) = &mut self.table else { return Ok(Arc::default()) };
        table.refresh().await?;
        let version = table.version();
        if let Some((read, loaded)) = &self.read
            && *read == version
        {
            return Ok(loaded.clone());
        }
        let events = event::from_batches(&rows::all(table).await?)?;
        let state = RegistryState::fold(&events)?;
        let loaded = Arc::new(Loaded { events, state });
        self.read = Some((version, loaded.clone()));
        Ok(loaded)
    }

    /// The table, made if it is not there.
    async fn for_writing(&mut self) -> Result<&mut Table> {
        let table = match self.table.take() {
            Some(table) => table,
            None => self.store.table(&policy_events_spec()).await?,
        };
        Ok(self.table.insert(table))
    }
}

/// A routing policy must load; what other kinds need is their scorers' business.
fn check_usable(bundle: &Bundle) -> Result<()> {
    if bundle.manifest.kind == ROUTING_POLICY_KIND {
        Policy::load(bundle)?;
    }
    Ok(())
}

fn system_clock() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
