//! Sessions of a store: what is read, what is left out, and what a choice is said to have known.

mod stores;

use stores::{append, fresh_store, opinion, request};
use weir_learners::sessions::{
    Handoff, LeftOut, SessionJudgeConfig, SessionReward, SessionTurn, StoredSessions, judge_sessions,
    session_trajectories,
};
use weir_schemas::{Candidate, EventTimeMs, Feedback, Propensity, Request, Tokens, ToolCall};

/// A turn of a session: model b of candidates a and b, unless changed.
fn session_turn(session: &str, id: &str, arrival_ms: i64) -> Request {
    let candidate = |model: &str, propensity| Candidate { model: model.to_owned(), score: None, propensity };
    Request {
        session_id: Some(session.to_owned()),
        candidates: Some(vec![candidate("a", Some(0.75)), candidate("b", Some(0.25))]),
        completion_tokens: Some(Tokens(50)),
        end_to_end_ms: Some(500.0),
        finish_reason: Some("stop".to_owned()),
        ..request(id, arrival_ms)
    }
}

/// Somebody said of a session whether its task was done.
fn told(session: &str, value: f64) -> Feedback {
    Feedback {
        kind: "task_success".to_owned(),
        request_id: None,
        session_id: Some(session.to_owned()),
        event_ms: EventTimeMs(3_000),
        ..opinion(session, value)
    }
}

/// What a turn's state says.
fn said(stored: &StoredSessions, turn: &SessionTurn) -> Vec<String> {
    let names = stored.layout.names();
    assert_eq!(names.len(), turn.state.len());
    names.into_iter().zip(&turn.state).filter(|(_, number)| **number == 1.0).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn sessions_become_trajectories_of_what_was_known_before_each_choice() {
    let (_folder, store) = fresh_store().await;
    let failed = ToolCall { name: "search".into(), success: Some(false), error_class: None, latency_ms: None };
    let a = || Some("a".to_owned());
    let requests = [
        Request { tools_called: Some(vec![failed]), ..session_turn("done", "d1", 1_000) },
        Request {
            intended_model: a(),
            executed_model: a(),
            propensity: Some(Propensity::new(0.75).unwrap()),
            prompt_tokens: Some(Tokens(3_000)),
            tools_offered: Some(vec!["search".into()]),
            cached_prompt_tokens: Some(Tokens(1_000)),
            ..session_turn("done", "d2", 2_000)
        },
        Request { candidates: None, propensity: None, ..session_turn("undone", "u1", 1_500) },
        session_turn("unjudged", "n1", 1_600),
        // What a fallback brought belongs to the model that was chosen, where the probability of that is logged.
        Request { executed_model: a(), ..session_turn("fallback", "f1", 1_700) },
        Request { executed_model: a(), propensity: None, ..session_turn("unlogged", "l1", 1_750) },
        Request { cost_usd: None, ..session_turn("no-cost", "c1", 1_800) },
        // The newest arrival closes what came more than half an hour before, and is open itself.
        session_turn("open", "o1", 4_000_000),
    ];
    append(&store, Request::contract(), &requests).await;
    let opinions =
        [told("done", 1.0), told("undone", 0.0), told("fallback", 1.0), told("unlogged", 1.0), told("no-cost", 1.0)];
    append(&store, Feedback::contract(), &opinions).await;

    let ctx = weir_features::session(&store).await.expect("the views plan");
    let handoff = |from: &str, to: &str| Handoff { from: from.into(), to: to.into(), extra_turns: 2.0 };
    let reward = SessionReward {
        completion: 1.0,
        usd: 0.1,
        turn: 0.02,
        switch_mtok: 5.0,
        handoffs: vec![handoff("b", "a"), handoff("a", "b")],
        ..SessionReward::default()
    };
    let stored = session_trajectories(&ctx, &reward).await.expect("sessions read");
    let by_model = [("b".to_owned(), 2)].into();
    let left_out = LeftOut { unjudged: 1, not_as_chosen: 1, reward_unknown: 1, prompt_unknown: 0, by_model };
    assert_eq!(stored.left_out, left_out);
    // Two of the five judged ones.
    assert_eq!((stored.log.left_out_share(), stored.kept_turns), (0.4, 0));
    assert_eq!(stored.log.actions(), ["a", "b"]);
    let [done, undone, fallback] = stored.log.trajectories() else { panic!("{:#?}", stored.log) };
    assert!(done.completed && !undone.completed);
    let plain = |turn: &SessionTurn| (turn.action, turn.propensity, turn.allowed.clone());
    assert_eq!(plain(&done.turns[0]), (1, Some(0.25), vec![true, true]));
    assert_eq!(plain(&done.turns[1]), (0, Some(0.75), vec![true, true]));
    assert_eq!(plain(&undone.turns[0]), (1, None, vec![true, true]));
    assert_eq!(plain(&fallback.turns[0]), (1, Some(0.25), vec![true, true]));
    // Half a dollar at 0.1, a turn at 0.02; the switch reads 2,000 tokens again at 5 a million and costs two more turns; then the task is done.
    let expected = [-0.05 - 0.02, -0.05 - 3.0 * 0.02 - 0.01 + 1.0];
    for (turn, expected) in done.turns.iter().zip(expected) {
        assert!((turn.reward - expected).abs() < 1e-12, "{} of {expected}", turn.reward);
    }
    let said = |turn: &SessionTurn| said(&stored, turn);
    let first =
        ["domain is law", "warm model is another or none", "place up to 1", "failures up to 0", "tool calls up to 0"];
    assert_eq!(said(&done.turns[0]), [&first[..], &["prompt tokens up to 1024"]].concat());
    let second = [
        "domain is law",
        "warm model is b",
        "place up to 2",
        "failures up to 1",
        "tool calls up to 2",
        "prompt tokens up to 4096",
        "warm tokens up to 1024",
        "the turn before failed",
        "tools are offered",
    ];
    assert_eq!(said(&done.turns[1]), second);
    // Without a price on dollars a missing cost is no reason to leave a session out.
    let stored = session_trajectories(&ctx, &SessionReward::default()).await.expect("sessions read");
    assert_eq!((stored.log.trajectories().len(), stored.left_out.reward_unknown), (4, 0));
}

#[tokio::test]
async fn a_call_that_failed_stays_and_its_state_does_not_tell() {
    let (_folder, store) = fresh_store().await;
    let failed = |turn| Request {
        error_class: Some("timeout".to_owned()),
        finish_reason: None,
        prompt_tokens: None,
        completion_tokens: None,
        cost_usd: None,
        ..turn
    };
    let requests = [
        Request { prompt_tokens: Some(Tokens(3_000)), ..session_turn("later", "l1", 1_000) },
        failed(session_turn("later", "l2", 2_000)),
        // Counted by the router before it called.
        Request { prompt_tokens_before_compression: Some(Tokens(90)), ..failed(session_turn("counted", "c1", 1_100)) },
        failed(session_turn("first", "f1", 1_200)),
        Request {
            prompt_tokens_before_compression: Some(Tokens(90)),
            end_to_end_ms: None,
            ..failed(session_turn("endless", "e1", 1_300))
        },
        session_turn("open", "o1", 4_000_000),
    ];
    append(&store, Request::contract(), &requests).await;
    let opinions = ["later", "counted", "first", "endless"].map(|session| told(session, 0.0));
    append(&store, Feedback::contract(), &opinions).await;
    let ctx = weir_features::session(&store).await.expect("the views plan");
    let reward = SessionReward { usd: 0.1, second: 0.2, ..SessionReward::default() };
    let stored = session_trajectories(&ctx, &reward).await.expect("sessions read");
    let by_model = [("b".to_owned(), 2)].into();
    assert_eq!(stored.left_out, LeftOut { prompt_unknown: 1, reward_unknown: 1, by_model, ..LeftOut::default() });
    let [later, counted] = stored.log.trajectories() else { panic!("{:#?}", stored.log) };
    // The count of the turn before, not none.
    assert!(said(&stored, &later.turns[1]).contains(&"prompt tokens up to 4096".to_owned()));
    assert!(said(&stored, &counted.turns[0]).contains(&"prompt tokens up to 1024".to_owned()));
    // No bill, half a second of waiting, a turn.
    let reward = later.turns[1].reward;
    assert!((reward + 0.2 * 0.5 + 0.02).abs() < 1e-12, "{reward}");
}

#[tokio::test]
async fn a_call_that_still_ran_has_shown_nothing_to_the_next_choice() {
    let (_folder, store) = fresh_store().await;
    let failed = ToolCall { name: "search".into(), success: Some(false), error_class: None, latency_ms: None };
    let requests = [
        Request { tools_called: Some(vec![failed]), end_to_end_ms: Some(4_000.0), ..session_turn("s", "slow", 1_000) },
        session_turn("s", "meanwhile", 2_000),
        session_turn("s", "after", 6_000),
        session_turn("open", "o1", 4_000_000),
    ];
    append(&store, Request::contract(), &requests).await;
    append(&store, Feedback::contract(), &[told("s", 1.0)]).await;
    let ctx = weir_features::session(&store).await.expect("the views plan");
    let stored = session_trajectories(&ctx, &SessionReward::default()).await.expect("sessions read");
    let [session] = stored.log.trajectories() else { panic!("{:#?}", stored.log) };
    let says = |turn: usize, what: &str| said(&stored, &session.turns[turn]).contains(&what.to_owned());
    for what in ["failures up to 0", "tool calls up to 0", "warm model is another or none"] {
        assert!(says(1, what), "{:?}", said(&stored, &session.turns[1]));
    }
    assert!(says(2, "failures up to 1") && says(2, "tool calls up to 2") && says(2, "warm model is b"));
}

/// Sixteen sessions of two turns with a model of probability 1/4: drawn anew, twelve would change it, and none does.
#[tokio::test]
async fn a_draw_that_is_kept_is_no_choice_at_later_turns() {
    let (_folder, store) = fresh_store().await;
    let turn = |at: i64, place: i64| Request {
        policy_version: Some("v1".to_owned()),
        ..session_turn(&format!("s{at:02}"), &format!("s{at:02}-{place}"), 1_000 * (1 + place) + at)
    };
    let requests: Vec<Request> = (0..16).flat_map(|at| [turn(at, 0), turn(at, 1)]).collect();
    append(&store, Request::contract(), &requests).await;
    append(&store, Request::contract(), &[session_turn("open", "o1", 4_000_000)]).await;
    let opinions: Vec<Feedback> = (0..16).map(|at| told(&format!("s{at:02}"), 1.0)).collect();
    append(&store, Feedback::contract(), &opinions).await;
    let ctx = weir_features::session(&store).await.expect("the views plan");
    let stored = session_trajectories(&ctx, &SessionReward::default()).await.expect("sessions read");
    assert_eq!((stored.log.trajectories().len(), stored.kept_turns), (16, 16));
    for session in stored.log.trajectories() {
        let plain = |turn: usize| (session.turns[turn].propensity, session.turns[turn].allowed.clone());
        assert_eq!((plain(0), plain(1)), ((Some(0.25), vec![true, true]), (Some(1.0), vec![false, true])));
    }
    // "Always b" made each of them four times as likely, not sixteen times.
    let always_b = vec![vec![0.0, 1.0, 0.0, 1.0]; 16];
    let judged = judge_sessions(&stored.log, &always_b, &SessionJudgeConfig::default()).expect("it can be judged");
    assert_eq!(judged.support.mean_weight.value, 4.0);
}
