#include "data/identifiers/phone.h"

#include <phonenumbers/phonenumbermatch.h>
#include <phonenumbers/phonenumbermatcher.h>
#include <phonenumbers/phonenumberutil.h>

#include <algorithm>
#include <set>

namespace retort {

using i18n::phonenumbers::PhoneNumberMatch;
using i18n::phonenumbers::PhoneNumberMatcher;
using i18n::phonenumbers::PhoneNumberUtil;

std::vector<std::string> phone_regions() {
  std::set<std::string> regions;
  PhoneNumberUtil::GetInstance()->GetSupportedRegions(&regions);
  return {regions.begin(), regions.end()};
}

std::vector<PhoneNumber> find_phone_numbers(std::string_view text, const std::vector<std::string>& regions) {
  static const PhoneNumberUtil& util = *PhoneNumberUtil::GetInstance();
  std::vector<PhoneNumber> found;
  auto look = [&](const std::string& region) {
    PhoneNumberMatcher matcher(util, std::string(text), region, PhoneNumberMatcher::STRICT_GROUPING, 16);
    for (PhoneNumberMatch match; matcher.HasNext() && matcher.Next(&match);) {
      PhoneNumber number{static_cast<size_t>(match.start()), static_cast<size_t>(match.end())};
      if (std::none_of(found.begin(), found.end(),
                       [&](const PhoneNumber& other) { return number.begin < other.end && other.begin < number.end; }))
        found.push_back(number);
    }
  };
  // Numbers that begin with + are the same in every region; "ZZ" is libphonenumber's name for none.
  if (regions.empty()) look("ZZ");
  for (const std::string& region : regions) look(region);
  return found;
}

}  // namespace retort
