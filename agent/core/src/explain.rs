//! Numbers of the datapath back into what people wrote.

use crate::policy::{PolicyKey, RuleRef};

/// Why a policy decided as it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether the packet was allowed.
    pub allowed: bool,
    /// The rules that made the matched entry.
    pub rules: Vec<RuleRef>,
    /// The default that decided, where no rule did.
    pub default: Option<String>,
    /// The policies that select the endpoint in this direction.
    pub policies: Vec<PolicyKey>,
    /// Since which revision of the endpoint's policy the matched entry stands.
    pub revision: u64,
}
