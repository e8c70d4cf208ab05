//! "Did you mean": the nearest of the names that exist. Knows no names of its own.

/// The candidate that is nearest to `name`, if any is near enough to be a slip of the finger.
pub fn nearest<'a, I>(name: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    let limit = (name.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|c| (distance(&name.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// `did you mean X?`, or what there is.
pub fn hint<'a, I>(name: &str, candidates: I) -> String
where
    I: IntoIterator<Item = &'a str> + Clone,
{
    if let Some(c) = nearest(name, candidates.clone()) {
        return format!("did you mean {c}?");
    }
    let mut known: Vec<&str> = candidates.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    match known.len() {
        0 => "there is none".to_owned(),
        n if n > 12 => format!("there are {}, ... ({n} in all)", known[..12].join(", ")),
        _ => format!("there are {}", known.join(", ")),
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours that make one of the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitute = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitute.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_does_not() {
        let pods = ["default/curl", "default/httpbin"];
        assert_eq!(nearest("default/crul", pods), Some("default/curl"));
        assert_eq!(nearest("POLICY_DENID", ["POLICY_DENIED", "POLICY_DENY"]), Some("POLICY_DENIED"));
        assert_eq!(nearest("zebra", pods), None);
        assert_eq!(hint("zebra", pods), "there are default/curl, default/httpbin");
        assert_eq!(hint("zebra", []), "there is none");
    }
}
