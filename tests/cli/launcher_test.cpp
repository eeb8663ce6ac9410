// The launcher on machines where something is missing: its tools are scripts that write down what they are asked.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "core/files.h"
#include "core/hash.h"
#include "core/process.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Launcher : testing::Test {
  TemporaryFolder folder;
  fs::path bin = folder / "bin", cache = folder / "cache", calls = folder / "calls";
  std::vector<std::string> environment = {"PATH=" + bin.string(), "HOME=" + folder.path().string(),
                                          "RETORT_CACHE=" + cache.string(), "CUDA=off"};

  Launcher() {
    for (const fs::path& path : {bin, folder / "tree/cmake/llama"}) fs::create_directories(path);
    fs::copy_file(RETORT_SOURCE_DIR "/retort", folder / "tree/retort");
    write_atomic(folder / "tree/cmake/llama/CMakeLists.txt", "");
    for (const char* tool : {"basename", "bash", "cat", "cut", "dirname", "env", "flock", "grep", "head", "mkdir",
                             "sed", "mv", "nproc", "rm", "sha256sum", "tail", "touch"}) {
      for (const char* place : {"/usr/bin/", "/bin/"})
        if (fs::exists(std::string(place) + tool) && !fs::exists(bin / tool))
          fs::create_symlink(std::string(place) + tool, bin / tool);
    }
    // Another user runs it when the tests are root's.
    write_atomic(calls, "");
    for (const fs::path& path : {folder.path(), calls}) fs::permissions(path, fs::perms::all);
    fake("dpkg-query", R"(for package; do
  case $package in -*) continue;; esac
  case " $missing " in *" $package "*) ;; *) echo -n "$package=installed ";; esac
done
[ -z "$missing" ])");
    fake("apt-get", "echo apt-get \"$@\" >>" + calls.string());
  }

  void fake(const std::string& name, const std::string& script) {
    write_atomic(bin / name, "#!/bin/sh\n" + script + "\n");
    fs::permissions(bin / name, fs::perms::all);
  }
  /// pip's arguments go to `calls`, then `script` runs.
  void fake_pip(const std::string& script) {
    fake("python3", "[ \"$1\" = -c ] && exec echo '(3, 11)'\necho \"$@\" >>" + calls.string() + "\n" + script);
  }
  /// LibTorch as Torch_ROOT names it, as far as the launcher looks.
  void fake_torch() {
    fs::create_directories(folder / "torch/lib");
    write_atomic(folder / "torch/lib/libtorch_cpu.so", "");
    environment.push_back("Torch_ROOT=" + (folder / "torch").string());
  }
  ProcessResult launch(const std::string& missing = "", bool as_root = false) const {
    std::vector<std::string> command = {"/usr/bin/env", "-i"};
    command.insert(command.end(), environment.begin(), environment.end());
    command.push_back("missing=" + missing);
    if (geteuid() == 0 && !as_root) {
      const std::vector<std::string> another = {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
      command.insert(command.end(), another.begin(), another.end());
    }
    command.insert(command.end(), {"/bin/bash", "-c", "exec \"$0\" ${arguments:-version}", folder / "tree/retort"});
    return run_program(command);
  }
};

constexpr const char* kInstall = "apt-get install -y --no-install-recommends ";

TEST_F(Launcher, WithoutRootOrSudoItPrintsTheOneLineAndStopsWith69) {
  const std::string line = std::string("\n  sudo apt-get update && sudo ") + kInstall + "ninja-build libhdf5-dev\n";
  const ProcessResult no_sudo = launch("libhdf5-dev ninja-build");
  EXPECT_EQ(no_sudo.status, 69) << no_sudo.errors;
  EXPECT_TRUE(no_sudo.errors.ends_with(line)) << no_sudo.errors;
  EXPECT_EQ(no_sudo.output, "");

  fake("sudo", "[ \"$1\" = -n ] && exit 1\necho asked >>" + calls.string());  // wants a password
  const ProcessResult password = launch("libhdf5-dev ninja-build");
  EXPECT_EQ(password.status, 69);
  EXPECT_TRUE(password.errors.ends_with(line)) << password.errors;
  EXPECT_EQ(read_text(calls), "") << "nothing was installed, nobody was asked";
}

TEST_F(Launcher, WithSudoItInstallsWhatIsMissing) {
  fake("sudo", "shift\necho sudo \"$@\" >>" + calls.string() + "\nexec \"$@\"");
  fake("true", "");
  environment.push_back("Torch_ROOT=/nowhere");
  const ProcessResult result = launch("lld ccache");
  EXPECT_EQ(result.status, 64) << result.errors;  // it went on, as far as LibTorch
  EXPECT_NE(result.errors.find("/nowhere holds no lib/libtorch_cpu.so"), std::string::npos) << result.errors;
  const std::string asked = read_text(calls), install = std::string(kInstall) + "ccache lld\n";
  EXPECT_NE(asked.find("sudo apt-get update\napt-get update\n"), std::string::npos) << asked;
  EXPECT_TRUE(asked.ends_with("sudo env DEBIAN_FRONTEND=noninteractive " + install + install)) << asked;
}

TEST_F(Launcher, RootNeedsNoSudo) {
  if (geteuid() != 0) GTEST_SKIP() << "not root";
  environment.push_back("Torch_ROOT=/nowhere");
  EXPECT_EQ(launch("lld", true).status, 64);
  EXPECT_EQ(read_text(calls), std::string("apt-get update\n") + kInstall + "lld\n");
}

TEST_F(Launcher, AFailingStepStopsItAndShowsItsOutput) {
  fake("sudo", "shift\nexec \"$@\"");
  fake("true", "");
  fake("apt-get", "echo 'E: no network here'; exit 100");
  const ProcessResult apt = launch("lld");
  EXPECT_EQ(apt.status, 69);
  EXPECT_NE(apt.errors.find("E: no network here\nretort: apt-get update failed"), std::string::npos) << apt.errors;

  fake("ldconfig", "");
  fake_pip("echo 'no index'; exit 1");
  const ProcessResult pip = launch();
  EXPECT_EQ(pip.status, 69);
  EXPECT_NE(pip.errors.find("no index\nretort: download of LibTorch failed"), std::string::npos) << pip.errors;

  environment[2] = "RETORT_CACHE=/proc/cache";
  const ProcessResult unwritable = launch();
  EXPECT_EQ(unwritable.status, 74);
  EXPECT_NE(unwritable.errors.find("cannot write to /proc/cache"), std::string::npos) << unwritable.errors;
}

TEST_F(Launcher, TakesTheCudaLibrariesThatThisMachineNeeds) {
  const auto asked = [&](const char* cuda, const std::string& known) {
    fs::remove_all(cache);
    write_atomic(calls, "");
    fs::permissions(calls, fs::perms::all);
    environment[3] = std::string("CUDA=") + cuda;
    fake("ldconfig", "echo '" + known + "'");
    fake_pip("exit 1");
    EXPECT_EQ(launch().status, 69);
    std::string arguments = read_text(calls);
    return arguments.substr(arguments.find("torch==2.11.0"));
  };
  EXPECT_EQ(asked("off", "libcudart.so.13 libcupti.so.13"), "torch==2.11.0\n");
  // More than a pipe holds, behind the names that are looked for.
  EXPECT_EQ(asked("off", "libcudart.so.13 libcupti.so.13" + std::string(1 << 18, '\n')), "torch==2.11.0\n");
  EXPECT_EQ(asked("off", "libcudart.so.13"), "torch==2.11.0 nvidia-cuda-runtime==13.0.* nvidia-cuda-cupti==13.0.*\n");
  const std::string gpu = asked("on", "libcudart.so.13 libcupti.so.13");
  for (const char* wheel : {"nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*", "nvidia-cublas==13.0.*",
                            "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "nvidia-nvjitlink==13.0.*"})
    EXPECT_NE(gpu.find(wheel), std::string::npos) << gpu;
}

// Compilers that only say that they were there: what is built when, and with which options.
TEST_F(Launcher, BuildsLlamaCppOnceThenTheProgramAndHandsOver) {
  fake_torch();
  fs::create_directories(cache / "llama/src-832db0699007");
  write_atomic(cache / "llama/src-832db0699007/.done", "");
  for (const fs::path& path : {cache, cache / "llama", folder / "tree"}) fs::permissions(path, fs::perms::all);
  const std::string said = calls.string(), prefix = (folder / "tree/prefix").string();
  fake("c++", "echo c++ $compiler");
  fake("cmake", "echo cmake \"$@\" >>" + said + "\ncase $1 in\n--install) to=$(cat " + prefix +
                    "); mkdir -p $to/lib; touch $to/lib/libllama.a;;\n" + "--preset) mkdir -p " +
                    (folder / "tree/build/release/bin").string() + "; touch " +
                    (folder / "tree/build/release/build.ninja").string() +
                    ";;\nesac\nfor a; do case $a in -DCMAKE_INSTALL_PREFIX=*) echo ${a#*=} >" + prefix +
                    ";; esac; done");
  fake("ninja", "echo ninja \"$@\" >>" + said);
  fake("ctest", "echo ctest \"$@\" >>" + said);
  const fs::path built = folder / "tree/build/release/bin/retort";
  fs::create_directories(built.parent_path());
  write_atomic(built, "#!/bin/sh\necho program \"$@\"\nexit 22\n");
  for (const fs::path& path : {folder / "tree/build", folder / "tree/build/release", built.parent_path(), built})
    fs::permissions(path, fs::perms::all);
  const auto started = [&] {
    const std::string lines = read_text(calls);
    return std::pair(lines.find("cmake/llama") != std::string::npos, lines.find("cmake --preset") != std::string::npos);
  };

  const ProcessResult first = launch();
  EXPECT_EQ(first.status, 22) << first.errors;  // the program's own
  EXPECT_EQ(first.output, "program version\n");
  EXPECT_EQ(started(), std::pair(true, true));
  const std::string asked = read_text(calls);
  EXPECT_NE(asked.find("-DTorch_ROOT=" + (folder / "torch").string()), std::string::npos) << asked;
  EXPECT_NE(asked.find("-DCUDA=off"), std::string::npos) << asked;
  EXPECT_NE(asked.find("-Dllama_ROOT=" + cache.string()), std::string::npos) << asked;

  const auto again = [&](const std::string& compiler) {
    write_atomic(calls, "");
    fs::permissions(calls, fs::perms::all);
    environment.push_back("compiler=" + compiler);
    EXPECT_EQ(launch().status, 22);
    return started();
  };
  EXPECT_EQ(again(""), std::pair(false, false)) << "what is built is kept";
  EXPECT_EQ(again("13"), std::pair(true, true)) << "another compiler";

  environment.push_back("arguments=test -R Sources");
  const ProcessResult test = launch();
  EXPECT_EQ(test.status, 0) << test.errors;
  EXPECT_NE(read_text(calls).find("ninja -C " + (folder / "tree/build/release").string()), std::string::npos);
  EXPECT_TRUE(read_text(calls).ends_with("-LE long -R Sources\n")) << read_text(calls);
}

TEST_F(Launcher, RefusesAnotherSourceOfLlamaCpp) {
  fake_torch();
  fake_pip("while [ \"$1\" != --dest ]; do shift; done\necho other >\"$2/llama_cpp_python-0.3.36.tar.gz\"");
  const ProcessResult result = launch();
  EXPECT_EQ(result.status, 69);
  EXPECT_NE(result.errors.find("SHA-256 is " + sha256_hex("other\n") +
                               ", expected 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"),
            std::string::npos)
      << result.errors;
  EXPECT_TRUE(fs::is_empty(cache / "llama")) << "a wrong file stays";
  EXPECT_NE(read_text(calls).find("llama-cpp-python==0.3.36"), std::string::npos) << read_text(calls);
}

}  // namespace
}  // namespace retort
