//! Lines over places that have names: percentiles, or commits.

use std::error::Error;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::numbers::shown;

/// Of all charts, in points.
pub const WIDTH: u32 = 960;
const HEIGHT: u32 = 340;

/// The page's style sheet replaces these two by what light and dark mode need.
pub const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
pub const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);

/// Colours that can be told apart on a light and on a dark ground, also by those who see fewer colours.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x44, 0x77, 0xAA),
    RGBColor(0xEE, 0x66, 0x77),
    RGBColor(0x22, 0x88, 0x33),
    RGBColor(0xBB, 0x99, 0x22),
    RGBColor(0x33, 0xAA, 0xCC),
    RGBColor(0xAA, 0x33, 0x77),
    RGBColor(0xEE, 0x77, 0x33),
    RGBColor(0x88, 0x88, 0x88),
];

/// The colour with a number; the last, grey, is that of ceilings.
pub fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// Number of the colour of ceilings.
pub const GREY: usize = COLOURS.len() - 1;

/// Text of this size.
pub fn text(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// How wide a text will be at most, in points. The fonts are those of the browser, so it is a guess.
pub fn text_width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX).saturating_mul(7)
}

/// Series over the same places.
pub struct Lines {
    /// What is measured upwards.
    pub unit: String,
    /// Names of the places, from left to right.
    pub places: Vec<String>,
    /// Name of a series, and its value at each place, if it has one.
    pub series: Vec<(String, Vec<Option<f64>>)>,
    /// Whether each step upwards is a multiplication.
    pub logarithmic: bool,
}

/// Draws them.
pub fn svg(lines: &Lines) -> Result<String, Box<dyn Error>> {
    let values = || lines.series.iter().flat_map(|(_, values)| values).flatten().copied();
    let greatest = values().fold(0.0, f64::max).max(1e-9);
    let least = values().filter(|value| *value > 0.0).fold(greatest, f64::min);
    if lines.logarithmic {
        // Whole decades, so that there are labels.
        let (from, mut to) = (libm::log10(least).floor(), libm::log10(greatest).ceil());
        if to <= from {
            to = from + 1.0;
        }
        drawn(lines, (libm::exp10(from)..libm::exp10(to)).log_scale())
    } else {
        drawn(lines, 0.0..greatest * 1.05)
    }
}

fn drawn<Y>(lines: &Lines, upwards: Y) -> Result<String, Box<dyn Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let last = u32::try_from(lines.places.len().saturating_sub(1))?;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(12)
            .margin_right(30)
            .margin_bottom(30)
            .y_label_area_size(90)
            .build_cartesian_2d(-0.3..f64::from(last) + 0.3, upwards)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .y_label_formatter(&|value| shown(*value))
            .y_desc(lines.unit.as_str())
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(text(14.0))
            .draw()?;
        let (area, (_, bottom)) = (chart.plotting_area(), root.dim_in_pixel());
        for (place, name) in (0_u32..).zip(&lines.places) {
            let (x, _) = area.map_coordinate(&(f64::from(place), 1.0));
            let at = text(14.0).pos(Pos::new(HPos::Center, VPos::Bottom));
            root.draw(&Text::new(name.clone(), (x, i32::try_from(bottom)? - 8), at))?;
        }
        for (number, (_, values)) in lines.series.iter().enumerate() {
            let points: Vec<(f64, f64)> = (0_u32..)
                .zip(values)
                .filter_map(|(place, value)| Some((f64::from(place), (*value)?)))
                .filter(|(_, value)| *value > 0.0 || !lines.logarithmic)
                .collect();
            chart.draw_series(LineSeries::new(points.clone(), colour(number).stroke_width(2)))?;
            for point in points {
                chart.plotting_area().draw(&Circle::new(point, 4, colour(number).filled()))?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}
