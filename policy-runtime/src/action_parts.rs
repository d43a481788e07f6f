//! Actions that are more than a model: which provider serves it, and with which mode of reasoning.
//!
//! An action's name is the model's, then its parts: `MODEL[;provider=PROVIDER][;reasoning=MODE]`. So a log, a table or a router that knows
//! nothing of parts still tells two actions apart, and what calls the model takes the name to pieces.

use std::fmt;

use serde::Serialize;

const PROVIDER: &str = ";provider=";
const REASONING: &str = ";reasoning=";

/// What to call. Displayed, it is the action's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ActionParts<'a> {
    /// The model's own name.
    pub model: &'a str,
    /// Who serves it; none where the action leaves that open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'a str>,
    /// Reasoning effort, or mode, to ask for (low, high, on, off, ...); none where the action leaves that open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<&'a str>,
}

impl<'a> ActionParts<'a> {
    /// Takes a name to pieces. A name of no such form is a model's.
    #[must_use]
    pub fn of(name: &'a str) -> Self {
        if !name.contains(';') {
            return Self { model: name, provider: None, reasoning: None };
        }
        let cut = |text: &'a str, mark: &str| match text.split_once(mark) {
            Some((before, part)) if !before.is_empty() && !part.is_empty() => (before, Some(part)),
            _ => (text, None),
        };
        let (rest, reasoning) = cut(name, REASONING);
        let (model, provider) = cut(rest, PROVIDER);
        Self { model, provider, reasoning }
    }

    /// Is it a model and nothing else?
    #[must_use]
    pub fn is_model_alone(&self) -> bool {
        self.provider.is_none() && self.reasoning.is_none()
    }
}

impl fmt::Display for ActionParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model)?;
        for (mark, part) in [(PROVIDER, self.provider), (REASONING, self.reasoning)] {
            if let Some(part) = part {
                write!(f, "{mark}{part}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_of_another_form_is_a_models() {
        for name in ["gpt-5", "", ";provider=x", "a;provider=", "a;b", "claude@2024:thinking", "a;reasoning="] {
            let parts = ActionParts::of(name);
            assert_eq!((parts.model, parts.is_model_alone()), (name, true));
        }
    }

    proptest! {
        #[test]
        fn a_name_and_its_parts_say_the_same(
            model in "[a-z0-9/:.@+-]{1,12}",
            provider in proptest::option::of("[a-z_-]{1,8}"),
            reasoning in proptest::option::of("[a-z]{1,6}"),
        ) {
            let parts = ActionParts { model: &model, provider: provider.as_deref(), reasoning: reasoning.as_deref() };
            let name = parts.to_string();
            prop_assert_eq!(ActionParts::of(&name), parts);
        }

        #[test]
        fn whatever_a_name_is_its_parts_give_it_back(name in ".{0,40}") {
            prop_assert_eq!(ActionParts::of(&name).to_string(), name);
        }
    }
}
