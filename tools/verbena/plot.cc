// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/plot.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/util/json_util.h"
#include "tools/verbena/files.h"
#include "tools/verbena/plot_axis.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

// In the picture's own units, pixels on a screen.
constexpr double kWidth = 800;
constexpr double kLeft = 80;  // of the plotted area
constexpr double kRight = 30;
constexpr double kTop = 46;
constexpr double kAreaHeight = 340;
constexpr double kAxisHeight = 58;  // labels and title of the x axis
constexpr double kLegendLine = 20;

// Seven that most kinds of colour vision tell apart.
constexpr std::array kColours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                 "#000000", "#B8860B", "#56B4E9"};
// Around (0, 0).
constexpr std::array kMarkers = {"M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", "M-3.6,-3.6h7.2v7.2h-7.2z",
                                 "M0,-4.8L4.6,3.4H-4.6z", "M0,-5L4.6,0L0,5L-4.6,0z",
                                 "M0,4.8L4.6,-3.4H-4.6z"};

struct Point {
  double x = 0;
  double y = 0;
};

struct Curve {
  std::string legend;  // empty: it has the look of the curve before, dashed, without markers
  std::vector<Point> points;
};

struct Panel {
  std::string title;
  std::string y_title;
  std::vector<Curve> curves;
};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(
      Printable(text),
      {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"\n", " "}});
}

std::string LegendOf(const PlotRun& run) {
  const report::PerfReport& report = run.report;
  std::string text = report.op();
  if (!report.atomic().empty()) absl::StrAppend(&text, " (", report.atomic(), ")");
  absl::StrAppend(&text, " over ", report.connection().device());
  if (report.queue_pairs() > 1) absl::StrAppend(&text, ", ", report.queue_pairs(), " queue pairs");
  if (report.mode() != "lat") absl::StrAppend(&text, ", window ", report.window());
  if (report.events()) absl::StrAppend(&text, ", events");
  constexpr size_t kLongest = 48;
  std::string name = run.name;
  if (name.size() > kLongest) name = absl::StrCat(name.substr(0, kLongest - 3), "...");
  return name.empty() ? text : absl::StrCat(name, ": ", text);
}

Curve CurveOf(const report::PerfReport& report, std::string legend,
              const std::function<double(const report::PerfRow&)>& y) {
  Curve curve{.legend = std::move(legend), .points = {}};
  for (const report::PerfRow& row : report.rows()) {
    if (row.size_bytes() > 0 && y(row) > 0) {
      curve.points.push_back({static_cast<double>(row.size_bytes()), y(row)});
    }
  }
  return curve;
}

std::vector<Panel> PanelsOf(const std::vector<PlotRun>& runs) {
  Panel latency{"Latency of one operation; write and send: half a round trip. Dashed: 99 %",
                "median, microseconds",
                {}};
  Panel bandwidth{"Bandwidth, one direction", "GB/s (10⁹ bytes)", {}};
  Panel rate{"Message rate", "million operations/s", {}};
  for (const PlotRun& run : runs) {
    if (run.report.rows().empty()) continue;
    const std::string legend = LegendOf(run);
    if (run.report.mode() == "lat") {
      latency.curves.push_back(
          CurveOf(run.report, legend, [](const auto& row) { return row.latency().median_us(); }));
      latency.curves.push_back(
          CurveOf(run.report, "", [](const auto& row) { return row.latency().p99_us(); }));
    } else if (run.report.mode() == "bw") {
      bandwidth.curves.push_back(
          CurveOf(run.report, legend, [](const auto& row) { return row.gigabytes_per_second(); }));
    } else {
      rate.curves.push_back(CurveOf(
          run.report, legend, [](const auto& row) { return row.operations_per_second() / 1e6; }));
    }
  }
  std::vector<Panel> panels;
  for (Panel& panel : std::array{latency, bandwidth, rate}) {
    std::erase_if(panel.curves, [](const Curve& curve) { return curve.points.empty(); });
    if (!panel.curves.empty()) panels.push_back(std::move(panel));
  }
  return panels;
}

size_t LegendLines(const Panel& panel) {
  return static_cast<size_t>(
      std::count_if(panel.curves.begin(), panel.curves.end(),
                    [](const Curve& curve) { return !curve.legend.empty(); }));
}

double HeightOf(const Panel& panel) {
  return kTop + kAreaHeight + kAxisHeight + kLegendLine * static_cast<double>(LegendLines(panel)) +
         14;
}

class Drawing {
 public:
  Drawing(const Panel& panel, double y) : panel_(panel), top_(y + kTop) {
    Point least{1e300, 1e300};
    Point most;
    for (const Curve& curve : panel.curves) {
      for (const Point& point : curve.points) {
        least = {std::min(least.x, point.x), std::min(least.y, point.y)};
        most = {std::max(most.x, point.x), std::max(most.y, point.y)};
      }
    }
    x_ = PlotAxis::Sizes(least.x, most.x);
    y_ = PlotAxis::Decimal(least.y, most.y);
  }

  std::string Draw() {
    Axes();
    Curves();
    return std::move(svg_);
  }

 private:
  double X(double size) const { return kLeft + x_.Place(size) * (kWidth - kLeft - kRight); }
  double Y(double value) const { return top_ + (1 - y_.Place(value)) * kAreaHeight; }

  void Text(double x, double y, const char* more, const std::string& text) {
    absl::StrAppendFormat(&svg_, "<text x=\"%.1f\" y=\"%.1f\"%s>%s</text>\n", x, y, more,
                          Escaped(text));
  }

  void Line(double x1, double y1, double x2, double y2, bool strong) {
    absl::StrAppendFormat(&svg_,
                          "<path d=\"M%.1f,%.1fL%.1f,%.1f\" stroke=\"%s\" stroke-width=\"%s\"/>\n",
                          x1, y1, x2, y2, strong ? "#bbbbbb" : "#e6e6e6", strong ? "1" : "0.8");
  }

  void Axes() {
    const double bottom = top_ + kAreaHeight;
    Text(kLeft, top_ - 16, " font-size=\"15\" font-weight=\"bold\"", panel_.title);
    for (const PlotTick& tick : x_.ticks()) {
      Line(X(tick.value), top_, X(tick.value), bottom, !tick.label.empty());
      Text(X(tick.value), bottom + 18, " text-anchor=\"middle\"", tick.label);
    }
    for (const PlotTick& tick : y_.ticks()) {
      Line(kLeft, Y(tick.value), kWidth - kRight, Y(tick.value), !tick.label.empty());
      Text(kLeft - 8, Y(tick.value) + 4.5, " text-anchor=\"end\"", tick.label);
    }
    absl::StrAppendFormat(&svg_,
                          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                          "fill=\"none\" stroke=\"#333333\"/>\n",
                          kLeft, top_, kWidth - kLeft - kRight, kAreaHeight);
    Text((kLeft + kWidth - kRight) / 2, bottom + 40, " text-anchor=\"middle\"",
         "size of an operation");
    const double middle = top_ + kAreaHeight / 2;
    Text(24, middle,
         absl::StrFormat(" text-anchor=\"middle\" transform=\"rotate(-90 24 %.1f)\"", middle)
             .c_str(),
         panel_.y_title);
  }

  void Curves() {
    size_t look = 0;
    double legend_y = top_ + kAreaHeight + kAxisHeight + kLegendLine / 2;
    for (const Curve& curve : panel_.curves) {
      const bool companion = curve.legend.empty();
      if (!companion) ++look;
      const char* const colour = kColours[(look - 1) % kColours.size()];
      const char* const marker = kMarkers[(look - 1) % kMarkers.size()];
      std::string path;
      for (const Point& point : curve.points) {
        absl::StrAppendFormat(&path, "%s%.1f,%.1f", path.empty() ? "M" : "L", X(point.x),
                              Y(point.y));
      }
      absl::StrAppendFormat(
          &svg_,
          "<path class=\"%s\" d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"%s/>\n",
          companion ? "companion" : "curve", path, colour, companion ? "1.2" : "2",
          companion ? " stroke-dasharray=\"5,4\"" : "");
      if (companion) continue;
      for (const Point& point : curve.points) Marker(marker, colour, X(point.x), Y(point.y));
      absl::StrAppendFormat(&svg_, "<path d=\"M%.1f,%.1fh36\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                            kLeft, legend_y, colour);
      Marker(marker, colour, kLeft + 18, legend_y);
      Text(kLeft + 46, legend_y + 4.5, "", curve.legend);
      legend_y += kLegendLine;
    }
  }

  void Marker(const char* shape, const char* colour, double x, double y) {
    absl::StrAppendFormat(&svg_,
                          "<path d=\"%s\" fill=\"%s\" transform=\"translate(%.1f %.1f)\"/>\n",
                          shape, colour, x, y);
  }

  const Panel& panel_;
  const double top_;
  PlotAxis x_;
  PlotAxis y_;
  std::string svg_;
};

}  // namespace

std::string Plot(const std::vector<PlotRun>& runs) {
  const std::vector<Panel> panels = PanelsOf(runs);
  double height = 0;
  std::string body;
  for (const Panel& panel : panels) {
    body += Drawing(panel, height).Draw();
    height += HeightOf(panel);
  }
  return absl::StrFormat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" "
      "fill=\"#222222\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n",
      kWidth, height, kWidth, height, body);
}

absl::Status PlotFiles(const std::vector<std::string>& files, const std::string& svg) {
  std::vector<PlotRun> runs;
  for (const std::string& file : files) {
    absl::StatusOr<std::string> text = ReadFile(file);
    if (!text.ok()) return text.status();
    PlotRun run{.name = file, .report = {}};
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;  // a later version's
    const auto parsed = google::protobuf::util::JsonStringToMessage(*text, &run.report, options);
    if (!parsed.ok() || run.report.rows().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": ", parsed.ok() ? "nothing was measured in it" : "it is not JSON",
                       ". Draw what `verbena perf -c ... --json` prints."));
    }
    run.name = file.substr(file.rfind('/') + 1);
    if (const size_t dot = run.name.rfind('.'); dot != std::string::npos && dot > 0) {
      run.name.resize(dot);
    }
    runs.push_back(std::move(run));
  }
  return WriteFile(svg, Plot(runs));
}

}  // namespace verbena::tool
