//! The web page: what the workload is, which policy is in force, what it is worth.
//!
//! **In:** the analytics views of `weir-sql` and the policy registry. **Out:** one page and the read-only JSON that it
//! draws from, as an [`axum::Router`].
//!
//! **Refuses to know:** how anything is computed. Every number on the page is a row of a view that `weir sql` prints
//! too; the page changes nothing, so it needs no token.

mod panels;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use weir_store::Store;

use panels::Panels;

/// The page at `/` and its data at `/api/panels/{name}`.
pub fn router(store: Store) -> Router {
    let panels = Arc::new(Panels::new(store));
    Router::new()
        .route("/", get(page))
        .route("/api/panels", get(names))
        .route("/api/panels/{name}", get(panel))
        .with_state(panels)
}

async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

async fn names() -> Response {
    let names: Vec<serde_json::Value> = panels::PANELS
        .iter()
        .map(|panel| serde_json::json!({ "name": panel.name, "title": panel.title, "note": panel.note, "sql": panel.sql.trim() }))
        .collect();
    axum::Json(names).into_response()
}

async fn panel(State(panels): State<Arc<Panels>>, Path(name): Path<String>) -> Response {
    let Some(panel) = panels::PANELS.iter().find(|panel| panel.name == name) else {
        return (StatusCode::NOT_FOUND, "no such panel: /api/panels lists them").into_response();
    };
    match panels.rows(panel).await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => {
            tracing::warn!(panel = panel.name, error, "panel query failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "this panel's query failed: see the log").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    /// Names of models, tags and policies come from outside. The page puts them into text nodes, where markup is text; one
    /// of these would make it markup again.
    #[test]
    fn no_value_becomes_markup() {
        let page = include_str!("page.html");
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc", "new Function"]
        {
            assert!(!page.contains(way), "{way} makes markup or code of what it is given: use textContent");
        }
        assert!(page.contains("textContent = cell("));
    }
}
