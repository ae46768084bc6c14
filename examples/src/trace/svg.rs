//! Line charts as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 300.0;
const MARGIN: [f64; 4] = [34.0, 20.0, 44.0, 56.0];
/// Colours that differ for the colour-blind too (Okabe and Ito).
const COLORS: [&str; 5] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"];
/// Most points of a line; more cannot be told apart.
const POINTS_MAX: usize = 1_500;

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is, for the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Drawn with dashes.
    pub dashed: bool,
}

/// A chart whose upright axis is in percent.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// What the horizontal axis is.
    pub x: String,
    /// The lines.
    pub lines: Vec<Line>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A round step that makes about six marks of a span.
fn step(span: f64) -> f64 {
    let raw = (span / 6.0).max(1e-9);
    let power = 10_f64.powf(raw.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|t| t * power >= raw).unwrap_or(10.0);
    times * power
}

/// At most [`POINTS_MAX`] points: of each stretch the lowest and the highest, so that no peak is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS_MAX / 2);
    let mut out = Vec::new();
    for part in points.chunks(stretch) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(low), Some(high)) = (part.iter().min_by(by), part.iter().max_by(by)) {
            out.extend(if low.0 <= high.0 { [*low, *high] } else { [*high, *low] });
        }
    }
    out
}

impl Chart {
    fn extent(&self) -> (f64, f64, f64) {
        let points = || self.lines.iter().flat_map(|l| l.points.iter());
        let left = points().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let right = points().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let top = points().map(|p| p.1).fold(0.0, f64::max);
        if right > left { (left, right, top.max(0.01)) } else { (0.0, 1.0, top.max(0.01)) }
    }

    fn draw(&self, top: f64, out: &mut String) {
        let [above, right, below, left] = MARGIN;
        let (width, height) = (WIDTH - left - right, PANEL - above - below);
        let (x0, x1, y1) = self.extent();
        let y_step = step(100.0 * y1) / 100.0;
        let y1 = (y1 / y_step).ceil() * y_step;
        let x = |v: f64| left + (v - x0) / (x1 - x0) * width;
        let y = |v: f64| top + above + (1.0 - v / y1) * height;
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = out.write_fmt(text);
            out.push('\n');
        };
        let title = escape(&self.title);
        line(format_args!(r#"<text x="{left}" y="{:.0}" font-weight="bold">{title}</text>"#, top + 20.0));
        for n in 0..=(y1 / y_step).round() as usize {
            let (value, at) = (n as f64 * y_step, y(n as f64 * y_step));
            let (end, text) = (WIDTH - right, left - 6.0);
            line(format_args!(r##"<path d="M{left} {at:.1}H{end}" stroke="#ddd"/>"##));
            let percent = format!("{:.*} %", usize::from(y_step < 0.01), 100.0 * value);
            line(format_args!(r#"<text x="{text}" y="{:.1}" text-anchor="end">{percent}</text>"#, at + 4.0));
        }
        let x_step = step(x1 - x0);
        let mut mark = (x0 / x_step).ceil() * x_step;
        while mark <= x1 + x_step * 1e-6 {
            let (at, bottom) = (x(mark), top + PANEL - below + 16.0);
            line(format_args!(
                r#"<text x="{at:.1}" y="{bottom:.1}" text-anchor="middle">{}</text>"#,
                (mark * 1e6).round() / 1e6
            ));
            mark += x_step;
        }
        let (middle, bottom) = (left + width / 2.0, top + PANEL - 8.0);
        line(format_args!(
            r#"<text x="{middle:.1}" y="{bottom:.1}" text-anchor="middle">{}</text>"#,
            escape(&self.x)
        ));
        for (n, l) in self.lines.iter().enumerate() {
            let color = COLORS.iter().cycle().nth(n).unwrap_or(&"black");
            let dash = if l.dashed { r#" stroke-dasharray="5 4""# } else { "" };
            let mut path = String::new();
            for (at, (px, py)) in thinned(&l.points).into_iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, x(px), y(py));
            }
            line(format_args!(r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"{dash}/>"#));
            let (lx, ly) = (left + 10.0 + 210.0 * n as f64, top + above + 12.0);
            line(format_args!(
                r#"<path d="M{lx:.0} {:.0}h24" stroke="{color}" stroke-width="3"{dash}/>"#,
                ly - 4.0
            ));
            line(format_args!(r#"<text x="{:.0}" y="{ly:.0}">{}</text>"#, lx + 30.0, escape(&l.name)));
        }
    }
}

/// The charts, one below the other.
///
/// ```
/// use examples::trace::svg::{Chart, Line, render};
/// let line = Line { name: "a < b".into(), points: vec![(0.0, 0.1), (9.0, 0.7)], dashed: false };
/// let svg = render(&[Chart { title: "t".into(), x: "seconds".into(), lines: vec![line] }]);
/// assert!(svg.starts_with("<svg") && svg.contains("a &lt; b") && svg.trim_end().ends_with("</svg>"));
/// ```
#[must_use]
pub fn render(charts: &[Chart]) -> String {
    let height = PANEL * charts.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, chart) in charts.iter().enumerate() {
        chart.draw(PANEL * n as f64, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([step(6.0), step(7.0), step(100.0), step(130.0)], [1.0, 2.0, 20.0, 50.0]);
    }

    #[test]
    fn thinning_keeps_peaks_and_order() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 0.5)).collect();
        points[7_777].1 = 0.9;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS_MAX && thin.is_sorted_by_key(|p| p.0));
        assert!(thin.contains(&(7_777.0, 0.9)));
    }

    #[test]
    fn a_chart_without_points_is_drawn() {
        let line = Line { name: "none".into(), points: vec![], dashed: true };
        let svg = render(&[Chart { title: String::new(), x: String::new(), lines: vec![line] }]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
