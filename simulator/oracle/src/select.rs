//! Label selectors, from the text of the API's LabelSelector: all of matchLabels and matchExpressions must hold; an
//! empty selector selects everything.

use std::collections::BTreeMap;

use skep_manifest::k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement,
};

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|other| other == value));
    match requirement.operator.as_str() {
        "In" => listed,
        // Also what does not have the label at all.
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // The manifest's check lets no other operator through.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: &str, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(ToString::to_string).collect();
        let requirement =
            LabelSelectorRequirement { key: "k".into(), operator: operator.into(), values: Some(values) };
        LabelSelector { match_expressions: Some(vec![requirement]), ..Default::default() }
    }

    #[test]
    fn operators_on_a_label_that_is_there_another_and_none() {
        let (a, c, none) =
            ([("k".into(), "a".into())].into(), [("k".into(), "c".into())].into(), Labels::new());
        let on = |selector: &LabelSelector| [&a, &c, &none].map(|labels| selects(selector, labels));
        assert_eq!(on(&requirement("In", &["a", "b"])), [true, false, false]);
        assert_eq!(on(&requirement("NotIn", &["a", "b"])), [false, true, true]);
        assert_eq!(on(&requirement("Exists", &[])), [true, true, false]);
        assert_eq!(on(&requirement("DoesNotExist", &[])), [false, false, true]);
        assert_eq!(on(&LabelSelector::default()), [true, true, true]);
    }
}
