// retort route: which prompts the small model may answer alone.
#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/signals.h"
#include "recipes/router.h"

namespace retort {
namespace {

std::string shown(const Json& value) { return value.is_number() ? fmt::format("{:.3f}", value.get<double>()) : "–"; }

void print_evaluation(const Json& router) {
  const Json& chosen = router["chosen"];
  fmt::print("{} rows: small alone {}, large alone {}\n", router["rows"].get<int64_t>(), shown(router["small_alone"]),
             shown(router["large_alone"]));
  fmt::print(
      "at threshold {}: {} to the small model, outcome {}, PGR {}, loss {} (at most {} with {:.0f} % confidence)\n",
      shown(router["threshold"]), shown(chosen["to_small"]), shown(chosen["quality"]), shown(chosen["pgr"]),
      shown(chosen["loss"]), shown(chosen["loss_at_most"]), 100 * (1 - router["delta"].get<double>()));
  if (chosen.contains("cost"))
    fmt::print("cost {} a prompt, the large model alone {}\n", shown(chosen["cost"]), shown(chosen["large_cost"]));
  fmt::print("probability: NLL {}, Brier {}, ECE {}\n\n", shown(router["calibration"]["nll"]),
             shown(router["calibration"]["brier"]), shown(router["calibration"]["ece"]));
  fmt::print("{:<8} {:>7} {:>9} {:>9} {:>9}\n", "rule", "APGR", "CPT(20 %)", "CPT(50 %)", "CPT(80 %)");
  for (const auto& [name, curve] : router["curves"].items())
    fmt::print("{:<8} {:>7} {:>9} {:>9} {:>9}\n", name, shown(curve["apgr"]), shown(curve["cpt"]["20"]),
               shown(curve["cpt"]["50"]), shown(curve["cpt"]["80"]));
}

std::function<int()> measure(CLI::App& app) {
  struct Arguments : RouteMeasurement {
    std::string recipe;
    std::vector<std::string> overrides;
    bool quiet = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app.add_option("recipe", arguments->recipe, "the recipe whose data.validation is asked")->required();
  app.add_option("overrides", arguments->overrides, "key=value pairs that replace the recipe's");
  app.add_option("--small", arguments->small, "GGUF file of the small model: a path or a source")->required();
  app.add_option("--large", arguments->large, "GGUF file of the large model: a path or a source")->required();
  app.add_option("--profile", arguments->profile, "the small model's drift profile: adds the distance to it");
  app.add_option("--out", arguments->out, "where the rows are written, JSON Lines")->required();
  app.add_option("--skip", arguments->skip, "leave out the first rows")->check(CLI::NonNegativeNumber);
  app.add_option("--limit", arguments->limit, "ask so many rows; 0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", arguments->max_tokens, "longest answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--quiet", arguments->quiet, "no progress bars");
  return [arguments] {
    const Json found = measure_routes(load_recipe(arguments->recipe, arguments->overrides), *arguments,
                                      arguments->quiet ? ProgressSink() : stream_progress());
    fmt::print("{}: {} rows; the small model is right in {}, the large one in {}\n", found["out"].get<std::string>(),
               found["rows"].get<int64_t>(), shown(found["small"]), shown(found["large"]));
    return 0;
  };
}

std::function<int()> calibrate(CLI::App& app) {
  struct Arguments {
    std::filesystem::path data, small, out;
    RouteOptions options;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app.add_option("data", arguments->data, "rows with both models' outcomes, JSON Lines (docs/router.md)")->required();
  app.add_option("--small", arguments->small, "GGUF file of the small model, where the rows do not name its hash");
  app.add_option("--out", arguments->out, "the router")->required();
  app.add_option("--epsilon", arguments->options.epsilon, "largest share of prompts that may lose by the small model")
      ->capture_default_str();
  app.add_option("--delta", arguments->options.delta, "probability that the bound does not hold")
      ->capture_default_str();
  app.add_option("--ridge", arguments->options.ridge, "ridge of the logistic regression")->capture_default_str();
  app.add_option("--seed", arguments->options.seed, "of the split of the rows")->capture_default_str();
  app.add_flag("--json", arguments->json, "print JSON");
  return [arguments] {
    RouteData data = read_route_rows(arguments->data);
    if (!arguments->small.empty()) {
      const std::string hash = sha256_file(arguments->small);
      if (!data.source.small_sha256.empty() && data.source.small_sha256 != hash)
        fail(Exit::bad_input, "{}: its rows are of another small model than {}", arguments->data.string(),
             arguments->small.string());
      data.source.small_sha256 = hash;
    }
    if (data.source.small_sha256.empty())
      fail(Exit::usage, "{}: the rows do not say which small model they are of; give --small FILE",
           arguments->data.string());
    const Router router = calibrate_router(data, arguments->options);
    write_router(arguments->out, router);
    if (arguments->json) {
      fmt::print("{}\n", router.to_json().dump(2));
    } else if (router.threshold) {
      fmt::print(
          "{}: at a score of {:.4f} and more the small model answers: {} of {} rows, {} lost, at most {:.4f} with "
          "{:.4g} % confidence\n",
          arguments->out.string(), *router.threshold, router.sent, router.rows, router.losses, router.bound,
          100 * (1 - router.delta));
    } else {
      fmt::print(
          "{}: no threshold keeps the loss at {} with {:.4g} % confidence on {} rows: every prompt goes to the "
          "large model\n",
          arguments->out.string(), router.epsilon, 100 * (1 - router.delta), router.rows);
    }
    return 0;
  };
}

std::function<int()> evaluate(CLI::App& app) {
  auto options = std::make_shared<RouteEvaluation>();
  auto json = std::make_shared<bool>(false);
  app.add_option("router", options->router, "made by `retort route calibrate`")->required();
  app.add_option("data", options->data, "other rows than it was made of, JSON Lines")->required();
  app.add_option("--small", options->small, "the GGUF file that serves: must be the router's");
  app.add_option("--drift", options->drift, "report.json of `retort drift check`: an alarm revokes the router");
  app.add_option("--out", options->out, "folder of report.json and report.html");
  app.add_flag("--json", *json, "print JSON");
  return [options, json] {
    const Json report = evaluate_route(*options);
    if (*json)
      fmt::print("{}\n", report.dump(2));
    else
      print_evaluation(report["router"]);
    return 0;
  };
}

std::function<int()> setup(CLI::App& app) {
  app.require_subcommand(1);
  CLI::App* rows = app.add_subcommand("measure", "Let both models answer a recipe's validation rows.");
  CLI::App* fit = app.add_subcommand("calibrate", "Fit the router and choose its threshold with a bound on the loss.");
  CLI::App* judge = app.add_subcommand("evaluate", "Cost and quality of a router on other rows.");
  const auto run_rows = measure(*rows), run_fit = calibrate(*fit), run_judge = evaluate(*judge);
  return [=] { return rows->parsed() ? run_rows() : fit->parsed() ? run_fit() : run_judge(); };
}

}  // namespace

extern const Command command_route;
const Command command_route = {
    "route", "Decide which prompts the small model may answer alone.",
    "  retort route measure configs/quickstart.yaml --small small.gguf --large large.gguf --out rows.jsonl\n"
    "  retort route calibrate rows.jsonl --epsilon 0.05 --delta 0.1 --out router.json\n"
    "  retort route evaluate router.json other.jsonl --small small.gguf --out routed\n"
    "Exit code 65: the router is revoked or of another model; 10: the drift report says alarm, and it is revoked "
    "now.\n",
    setup};

}  // namespace retort
