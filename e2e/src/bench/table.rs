//! Medians and ratios as a Markdown table: each figure of each contestant, and in brackets Envoy's divided by it (more is better).

use super::proxy::Kind;
use std::fmt::Write;

/// What one turn of one contestant gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub cpu_us: Option<f64>,
    pub per_second: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub idle_mb: Option<f64>,
    pub loaded_mb: Option<f64>,
    pub ready_ms: Option<f64>,
}

pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub figures: Vec<Figures>,
}

type Field = fn(&Figures) -> Option<f64>;

/// Heading, field, whether less is better.
const COLUMNS: [(&str, Field, bool); 7] = [
    ("CPU per request, µs", |f| f.cpu_us, true),
    ("requests/s", |f| f.per_second, false),
    ("p50, µs", |f| f.p50_us, true),
    ("p99, µs", |f| f.p99_us, true),
    ("memory idle, MB", |f| f.idle_mb, true),
    ("under load, MB", |f| f.loaded_mb, true),
    ("start to first answer, ms", |f| f.ready_ms, true),
];

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn value(row: &Row, field: Field) -> Option<f64> {
    median(row.figures.iter().filter_map(field).collect())
}

pub fn render(title: &str, rows: Vec<Row>) -> String {
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, field, _)| rows.iter().any(|row| value(row, *field).is_some()))
        .collect();
    let rounds = rows.iter().map(|row| row.figures.len()).max().unwrap_or_default();
    let mut text = format!(
        "### {title}\n\nMedians of {rounds} rounds; in brackets how many times better than Envoy.\n\n|"
    );
    let headings = columns.iter().map(|(heading, _, _)| format!(" {heading} |"));
    let _ = write!(text, " |{}\n|---|", headings.collect::<String>());
    let _ = writeln!(text, "{}", "---|".repeat(columns.len()));
    let envoy = rows.iter().find(|row| row.kind == Kind::Envoy);
    for row in &rows {
        let _ = write!(text, "| {} |", row.name);
        for (_, field, less) in &columns {
            let Some(own) = value(row, *field) else {
                text.push_str(" |");
                continue;
            };
            let _ = write!(text, " {own:.1}");
            if let Some(other) = envoy
                .and_then(|envoy| value(envoy, *field))
                .filter(|other| *other > 0.0 && own > 0.0)
            {
                let _ = write!(text, " ({:.2})", if *less { other / own } else { own / other });
            }
            text.push_str(" |");
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_say_how_many_times_better() {
        let row = |kind: Kind, values: [f64; 3]| Row {
            name: kind.name().into(),
            kind,
            figures: values
                .map(|cpu| Figures {
                    cpu_us: Some(cpu),
                    ..Figures::default()
                })
                .to_vec(),
        };
        let text = render(
            "T",
            vec![
                row(Kind::Ours, [20.0, 10.0, 90.0]),
                row(Kind::Envoy, [60.0, 50.0, 70.0]),
            ],
        );
        assert!(text.contains("| Gossamer | 20.0 (3.00) |"), "{text}");
        assert!(
            !text.contains("requests/s"),
            "columns without figures are left out: {text}"
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
