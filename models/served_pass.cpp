#include "models/served_pass.h"

#include <algorithm>

namespace retort {

int64_t shared_beginning(std::span<const ServedRequest> requests) {
  if (requests.size() < 2) return 0;
  size_t shared = requests[0].ids.size();
  for (const ServedRequest& request : requests) {
    shared = std::min(shared, request.ids.size() - (request.generate > 0 ? 1 : 0));
    if (!request.wanted.empty()) shared = std::min(shared, static_cast<size_t>(request.wanted.front()));
    auto [a, b] =
        std::mismatch(request.ids.begin(), request.ids.begin() + static_cast<int64_t>(shared), requests[0].ids.begin());
    shared = static_cast<size_t>(a - request.ids.begin());
  }
  return static_cast<int64_t>(shared);
}

SharedPass plan_pass(std::span<const ServedRequest> requests, size_t first, int64_t shared, bool shares) {
  SharedPass pass;
  pass.first = pass.last = first;
  std::map<int32_t, size_t> roots;
  for (; pass.last < requests.size() && pass.paths.size() < static_cast<size_t>(kPassDocuments); ++pass.last) {
    const ServedRequest& request = requests[pass.last];
    // Walk along tokens that are there already; the rest would be new.
    std::vector<size_t> path;
    std::map<int32_t, size_t>* next = &roots;
    size_t t = static_cast<size_t>(shared);
    for (; shares && t < request.ids.size(); ++t) {
      auto it = next->find(request.ids[t]);
      if (it == next->end()) break;
      path.push_back(it->second);
      next = &pass.nodes[it->second].next;
    }
    size_t total = pass.nodes.size() + (request.ids.size() - t) + static_cast<size_t>(pass.generated);
    if (!pass.paths.empty() && total + static_cast<size_t>(request.generate) > kPassTokens) break;
    if (!shares && !pass.paths.empty()) break;
    for (; t < request.ids.size(); ++t) {
      auto& siblings = path.empty() ? roots : pass.nodes[path.back()].next;
      siblings[request.ids[t]] = pass.nodes.size();
      path.push_back(pass.nodes.size());
      pass.nodes.push_back({request.ids[t], static_cast<int64_t>(t), false, {}, {}});
    }
    const auto sequence = static_cast<int32_t>(pass.paths.size() + 1);
    for (size_t node : path) pass.nodes[node].sequences.push_back(sequence);
    for (int64_t position : request.wanted) pass.nodes[path[static_cast<size_t>(position - shared)]].output = true;
    if (request.generate > 0) pass.nodes[path.back()].output = true;
    pass.generated += request.generate;
    pass.paths.push_back(std::move(path));
  }
  return pass;
}

}  // namespace retort
