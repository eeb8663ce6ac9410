// Written from the services' own documentation of what their keys look like.
#include "data/secrets/secrets.h"

namespace retort {
namespace {

struct Builtin {
  const char* name;
  const char* text;
  const char* pattern;
  std::vector<std::string> keywords;
  double entropy = 0;
  bool needs_digit = false;
};

const std::vector<Builtin>& builtins() {
  static const std::vector<Builtin> list = {
      {"private_key",
       "private key in PEM or PGP armour",
       R"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=:,.()\s\\-]*?)"
       R"(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:(?:\\r)?(?:\\n)?\s*[A-Za-z0-9+/=]{16,})*))",
       {"private key"}},
      {"aws_access_key_id", "AWS access key id", R"(\b(?:AKIA|ASIA)[A-Z2-7]{16}\b)", {"akia", "asia"}},
      {"aws_secret_access_key",
       "AWS secret access key beside its name",
       R"((?i:aws|secret)[\w .-]{0,30}['"]?\s*[:=]\s*['"]?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$))",
       {"aws", "secret"},
       4.0,
       true},
      {"google_api_key", "Google API key", R"(\bAIza[0-9A-Za-z_-]{35})", {"aiza"}},
      {"google_oauth_secret", "Google OAuth client secret", R"(\bGOCSPX-[0-9A-Za-z_-]{28})", {"gocspx-"}},
      {"azure_storage_key", "Azure storage account key", R"((?i:accountkey)=([A-Za-z0-9+/]{86}==))", {"accountkey="}},
      {"azure_sas", "Azure shared access signature", R"([?&]sig=([A-Za-z0-9%/+]{40,}(?:%3[Dd]|=)))", {"sig="}, 4.0},
      {"github_token",
       "GitHub token",
       R"(\b(?:gh[pousr]_[0-9A-Za-z]{36,251}|github_pat_[0-9A-Za-z_]{60,251})\b)",
       {"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"},
       3.0},
      {"gitlab_token",
       "GitLab token",
       R"(\bgl(?:pat|ptt|dt|rt|soat|agent|cbt|ft|imt|oas)-[0-9A-Za-z_.-]{20,})",
       {"glpat-", "glptt-", "gldt-", "glrt-", "glsoat-", "glagent-", "glcbt-", "glft-", "glimt-", "gloas-"},
       3.0},
      {"slack_token",
       "Slack token",
       R"(\bxox[abeoprs]-[0-9A-Za-z-]{10,})",
       {"xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"},
       2.5},
      {"slack_webhook",
       "Slack webhook",
       R"(https://hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{40,}))",
       {"hooks.slack.com"}},
      {"stripe_key",
       "Stripe secret, restricted or webhook key",
       R"(\b(?:[rs]k_(?:live|test)_[0-9A-Za-z]{16,247}|whsec_[0-9A-Za-z+/=]{24,}))",
       {"sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"},
       3.0},
      {"anthropic_key", "Anthropic API key", R"(\bsk-ant-[a-z]+[0-9]+-[0-9A-Za-z_-]{40,})", {"sk-ant-"}, 3.0},
      {"openai_key",
       "OpenAI API key and those of its form",
       R"(\bsk-(?:proj-|svcacct-|admin-|or-v1-)?[0-9A-Za-z_-]{32,})",
       {"sk-"},
       3.5,
       true},
      {"huggingface_token", "Hugging Face token", R"(\b(?:hf|api_org)_[A-Za-z]{30,40}\b)", {"hf_", "api_org_"}, 3.0},
      {"npm_token", "npm token", R"(\bnpm_[0-9A-Za-z]{36}\b)", {"npm_"}, 3.0},
      {"pypi_token", "PyPI token", R"(\bpypi-AgE[0-9A-Za-z_-]{60,})", {"pypi-age"}},
      {"sendgrid_key", "SendGrid API key", R"(\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43})", {"sg."}},
      {"twilio_key", "Twilio API key", R"(\bSK[0-9a-f]{32}\b)", {"sk"}, 3.0},
      {"mailgun_key", "Mailgun key", R"(\bkey-[0-9a-f]{32}\b)", {"key-"}, 3.0},
      {"telegram_token", "Telegram bot token", R"(\b[0-9]{8,10}:AA[0-9A-Za-z_-]{33}\b)", {":aa"}, 3.0},
      {"discord_token",
       "Discord bot token",
       R"(\b[MNO][0-9A-Za-z_-]{23,27}\.[0-9A-Za-z_-]{6}\.[0-9A-Za-z_-]{27,40}\b)",
       {"discord"},
       4.0},
      {"shopify_token",
       "Shopify token",
       R"(\bshp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}\b)",
       {"shpat_", "shpca_", "shppa_", "shpss_"}},
      {"digitalocean_token", "DigitalOcean token", R"(\bdo[opr]_v1_[0-9a-f]{64}\b)", {"doo_v1_", "dop_v1_", "dor_v1_"}},
      {"databricks_token", "Databricks token", R"(\bdapi[0-9a-f]{32}(?:-\d)?\b)", {"dapi"}, 3.0},
      {"vault_token", "HashiCorp Vault token", R"(\bhv[bs]\.[0-9A-Za-z_-]{24,})", {"hvs.", "hvb."}, 3.0},
      {"docker_token", "Docker access token", R"(\bdckr_(?:pat|oat)_[0-9A-Za-z_-]{27,32})", {"dckr_"}},
      {"atlassian_token", "Atlassian API token", R"(\bATATT3[0-9A-Za-z_=-]{100,})", {"atatt3"}},
      {"jwt", "JSON web token", R"(\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{16,})", {"eyj"}},
      {"url_password",
       "password in a URL",
       R"(\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@'"<>]{0,64}:([^\s/:@'"<>${}*%]{4,128})@[A-Za-z0-9.\[-])",
       {"://"},
       2.0},
      {"authorization",
       "value of an Authorization header",
       R"((?i)\bauthorization['"]?\s*[:=]\s*['"]?(?:bearer|basic|token|apikey)\s+([0-9a-z._~+/=-]{16,}))",
       {"authorization"},
       3.0},
      {"assignment",
       "random value assigned to a name such as password, api_key or token",
       R"((?i)(?:api[_-]?key|api[_-]?secret|secret(?:[_-]?key)?|access[_-]?key|auth[_-]?token|access[_-]?token)"
       R"(|client[_-]?secret|private[_-]?key|password|passwd|passphrase|pwd|credentials?|token)['"]?\s*(?::=|=>|==?|:))"
       R"(\s*['"`]?([0-9a-z!@#$%^&*_+/=.~-]{8,128}))",
       {"api", "secret", "key", "token", "passw", "passp", "pwd", "credential"},
       3.0,
       true},
  };
  return list;
}

}  // namespace

std::vector<SecretRule> builtin_secret_rules() {
  SecretExemption placeholder;
  placeholder.stop_words = {"example", "placeholder", "changeme", "change_me", "xxxxxx", "your-",
                            "your_",   "yourapi",     "dummy",    "redacted",  "......", "******"};
  std::vector<SecretRule> rules;
  for (const Builtin& builtin : builtins()) {
    SecretRule rule;
    rule.name = builtin.name;
    rule.text = builtin.text;
    rule.keywords = builtin.keywords;
    rule.expression = compile_expression(builtin.pattern, builtin.name);
    rule.entropy = builtin.entropy;
    rule.needs_digit = builtin.needs_digit;
    rule.exemptions = {placeholder};
    rules.push_back(std::move(rule));
  }
  return rules;
}

}  // namespace retort
