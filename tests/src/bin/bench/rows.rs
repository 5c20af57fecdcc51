//! Horizontal bars.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::lines::{GRID, INK, WIDTH, colour, text, text_width};
use crate::numbers::shown;

/// Height of a bar, and of the gap between rows.
const BAR: u32 = 18;
const GAP: u32 = 12;
/// For the axis and its name.
const AXIS: u32 = 46;

/// Figures of one unit.
pub struct Rows {
    /// What is measured along the bars.
    pub unit: String,
    /// Name of a figure and its bars.
    pub rows: Vec<(String, Vec<Bar>)>,
}

/// One value.
pub struct Bar {
    pub value: f64,
    /// What stands at its end.
    pub label: String,
    /// Least and greatest repeat.
    pub range: Option<(f64, f64)>,
    /// Number of its colour.
    pub colour: usize,
}

/// Draws them from top to bottom.
pub fn svg(rows: &Rows) -> Result<String, Box<dyn Error>> {
    let bars = || rows.rows.iter().flat_map(|(_, bars)| bars);
    let height_of = |bars: usize| u32::try_from(bars).map(|bars| bars * BAR + GAP);
    let mut height = 0;
    for (_, bars) in &rows.rows {
        height += height_of(bars.len())?;
    }
    let names = rows.rows.iter().map(|(name, _)| text_width(name)).max().unwrap_or(0) + 16;
    let labels = bars().map(|bar| text_width(&bar.label)).max().unwrap_or(0) + 16;
    let ends = || bars().flat_map(|bar| [bar.value, bar.range.map_or(bar.value, |(_, greatest)| greatest)]);
    let least = bars().map(|bar| bar.value).fold(0.0, f64::min);
    // All values may be nothing, and an axis needs a length.
    let greatest = ends().fold(0.0, f64::max).max(least + 1e-9);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height + AXIS)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .x_label_area_size(AXIS)
            .margin_left(names)
            .margin_right(labels)
            .build_cartesian_2d(least..greatest, 0.0..f64::from(height))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(6)
            .x_label_formatter(&|value| shown(*value))
            .x_desc(rows.unit.as_str())
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(text(13.0))
            .draw()?;
        let mut top = f64::from(height);
        for (name, bars) in &rows.rows {
            let full = f64::from(height_of(bars.len())?);
            let at = text(15.0).pos(Pos::new(HPos::Right, VPos::Center));
            chart.plotting_area().draw(
                &(EmptyElement::at((least, top - full / 2.0)) + Text::new(name.clone(), (-8, 0), at)),
            )?;
            for (place, bar) in (0_u32..).zip(bars) {
                let upper = top - f64::from(GAP) / 2.0 - f64::from(place * BAR);
                let (lower, middle) = (upper - f64::from(BAR) + 2.0, upper - f64::from(BAR) / 2.0 + 1.0);
                let body = Rectangle::new([(0.0, upper), (bar.value, lower)], colour(bar.colour).filled());
                chart.plotting_area().draw(&body)?;
                let mut end = bar.value.max(0.0);
                if let Some((from, to)) = bar.range {
                    end = end.max(to);
                    chart.plotting_area().draw(&PathElement::new([(from, middle), (to, middle)], INK))?;
                }
                let at = text(14.0).pos(Pos::new(HPos::Left, VPos::Center));
                chart
                    .plotting_area()
                    .draw(&(EmptyElement::at((end, middle)) + Text::new(bar.label.clone(), (6, 0), at)))?;
            }
            top -= full;
        }
        root.present()?;
    }
    Ok(svg)
}
