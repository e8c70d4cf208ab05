//! Label selectors (`LabelSelector` of the API): a conjunction of requirements. An empty one matches everything.

use crate::change::Labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

/// A label selector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Selector {
    /// All of them must hold.
    pub requirements: Vec<Requirement>,
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of its value.
    pub operator: Operator,
}

/// What must hold of a label.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operator {
    /// It is there with one of these values.
    In(Vec<String>),
    /// It is not there, or with none of these values.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Whether these labels meet all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            match &r.operator {
                Operator::In(values) => value.is_some_and(|v| values.contains(v)),
                Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Reads the API's selector; an operator that the API has not is the error, with its index in `matchExpressions`.
    pub fn read(api: &LabelSelector) -> Result<Self, (usize, String)> {
        let mut requirements = Vec::new();
        for (key, value) in api.match_labels.iter().flatten() {
            requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
        }
        for (i, e) in api.match_expressions.iter().flatten().enumerate() {
            let values = e.values.clone().unwrap_or_default();
            let operator = match e.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err((i, other.to_owned())),
            };
            requirements.push(Requirement { key: e.key.clone(), operator });
        }
        Ok(Self { requirements })
    }
}
