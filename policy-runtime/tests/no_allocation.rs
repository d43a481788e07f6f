//! A decision allocates nothing: counted by the allocator itself, on the thread that decides.
#![allow(missing_docs, unsafe_code)] // a counting allocator cannot be written without unsafe; it forwards every call

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weir_policy_runtime::{Answer, CascadeRequest, Context, EscalationGate, PoolState, sticky_uniform};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| drop(std::hint::black_box(vec![1u8; 32]))), 1);
}

#[test]
fn a_thousand_decisions_allocate_nothing() {
    let policy = common::policy(20.0, 0.06);
    let mut scratch = policy.scratch();
    let embedding = [0.1, 0.2, f32::NAN];
    let mut chosen = [0u32; 3];
    let count = allocations_of(|| {
        for i in 0..1000u32 {
            let context = Context {
                domain: Some(if i % 2 == 0 { "law" } else { "poetry" }),
                prompt_tokens: (i % 3 != 0).then_some(i),
                embedding: Some(&embedding[..(i % 4) as usize]),
                ..Context::default()
            };
            let u = sticky_uniform(b"salt", if i % 5 == 0 { "a" } else { "b" });
            let decision = policy.decide(&context, &[true, i % 7 != 0, true], u, &mut scratch).unwrap();
            chosen[decision.action] += 1;
        }
    });
    assert_eq!(count, 0, "allocations in 1000 decisions");
    assert_eq!(chosen.iter().sum::<u32>(), 1000);
}

#[test]
fn the_first_decision_with_a_fitted_scratch_allocates_nothing() {
    let policy = common::policy(20.0, 0.06);
    let mut scratch = policy.scratch();
    let count = allocations_of(|| {
        policy.decide(&Context::default(), &[true; 3], 0.5, &mut scratch).unwrap();
    });
    assert_eq!(count, 0);
}

#[test]
fn a_thousand_steps_of_a_cascade_allocate_nothing() {
    let cascade = common::cascade();
    let (mut gate, mut scratch) = (EscalationGate::default(), Vec::with_capacity(cascade.accept.width()));
    let mut reasons = [0u32; 6];
    let count = allocations_of(|| {
        for i in 0..1000u32 {
            let now_ms = i64::from(i) * 100;
            let context = Context { domain: Some("law"), prompt_tokens: Some(i), ..Context::default() };
            let answer = Answer { completion_tokens: Some(i % 50), verifier_score: None };
            let pool = PoolState {
                as_of_ms: now_ms,
                queue_wait_ms: Some(f64::from(i / 50 % 3) * 600.0),
                ttft_base_ms: Some(100.0),
                prefill_tokens_per_s: Some(5_000.0),
                ..PoolState::default()
            };
            let request = CascadeRequest {
                accept_score: cascade.accept.score(&context, &answer, &mut scratch),
                ttft_budget_left_ms: 1_000.0,
                prompt_tokens: Some(i),
                compressible_tokens: Some(i / 2),
                mid_accept_score: Some(0.8),
            };
            let decision = cascade.decide(&mut gate, &request, &pool, Some(&pool), now_ms);
            reasons[decision.reason as usize] += 1;
        }
    });
    assert_eq!(count, 0, "allocations in 1000 steps");
    assert!(reasons.iter().filter(|count| **count > 0).count() >= 3, "one road only: {reasons:?}");
}
