#include "runner/outputs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace edgeq {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void remember(int signal) { g_signal = signal; }

mode_t current_umask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

/// "DIR/.NAME.XXXXXX" for mkstemp and mkdtemp; slashes at the end of `path` do not count.
std::string scratch_pattern(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(0, name) + "." + path.substr(name) + ".XXXXXX";
}

Status write_error(const std::string& path) {
  const int error = errno;
  return Status::io(path + " cannot be written (" + std::strerror(error) + ")" +
                    (error == ENOSPC || error == EDQUOT ? "; make room and run again" : ""));
}

Status create_error(const std::string& path) {
  return Status::io(path + " cannot be written (" + std::strerror(errno) +
                    "); name a place in an existing folder that may be written to");
}

}  // namespace

void stop_on_signals() {
  for (int signal : {SIGHUP, SIGINT, SIGTERM}) {
    struct sigaction action = {};
    // What the caller has told the process to ignore (nohup) stays ignored.
    if (::sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action.sa_handler = remember;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    (void)::sigaction(signal, &action, nullptr);
  }
}

Status check_stopped() {
  return g_signal == 0 ? Status() : Status::io("stopped by a signal; nothing was written");
}

void die_if_stopped() {
  if (g_signal != 0) {
    std::signal(g_signal, SIG_DFL);
    std::raise(g_signal);
  }
}

WholeFile& WholeFile::operator=(WholeFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(scratch_, other.scratch_);
  std::swap(file_, other.file_);
  return *this;
}

WholeFile::~WholeFile() {
  if (file_ >= 0) ::close(file_);
  if (!scratch_.empty()) ::unlink(scratch_.c_str());
}

Result<WholeFile> WholeFile::create(const std::string& path) {
  WholeFile file;
  file.path_ = path;
  std::string scratch = scratch_pattern(path);
  file.file_ = ::mkstemp(scratch.data());
  if (file.file_ < 0) return create_error(path);
  file.scratch_ = std::move(scratch);
  return file;
}

Status WholeFile::write(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(file_, at, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return write_error(path_);
    at += done;
    bytes -= static_cast<size_t>(done);
  }
  return check_stopped();
}

Status WholeFile::commit() {
  EDGEQ_RETURN_IF_ERROR(check_stopped());
  (void)::fchmod(file_, 0666 & ~current_umask());
  // Some file systems report a full disk only when the file is closed.
  const bool closed = ::close(file_) == 0;
  file_ = -1;
  if (!closed || ::rename(scratch_.c_str(), path_.c_str()) != 0) return write_error(path_);
  scratch_.clear();
  return Status();
}

WholeFolder& WholeFolder::operator=(WholeFolder&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(scratch_, other.scratch_);
  std::swap(files_, other.files_);
  return *this;
}

WholeFolder::~WholeFolder() {
  if (scratch_.empty()) return;
  for (const std::string& file : files_) ::unlink(file.c_str());
  ::rmdir(scratch_.c_str());
}

Result<WholeFolder> WholeFolder::create(const std::string& path) {
  WholeFolder folder;
  folder.path_ = path;
  // Found out now rather than after the work: rename replaces an empty folder only.
  if (DIR* found = ::opendir(path.c_str())) {
    int entries = 0;
    while (::readdir(found) != nullptr) ++entries;
    ::closedir(found);
    if (entries > 2) return Status::io(path + " is not empty; name a new folder");
  } else if (errno != ENOENT) {
    return create_error(path);
  }
  std::string scratch = scratch_pattern(path);
  if (::mkdtemp(scratch.data()) == nullptr) return create_error(path);
  folder.scratch_ = std::move(scratch);
  return folder;
}

std::string WholeFolder::add(const std::string& name) {
  files_.push_back(scratch_ + "/" + name);
  return files_.back();
}

Status WholeFolder::commit() {
  EDGEQ_RETURN_IF_ERROR(check_stopped());
  (void)::chmod(scratch_.c_str(), 0777 & ~current_umask());
  if (::rename(scratch_.c_str(), path_.c_str()) != 0) return write_error(path_);
  scratch_.clear();
  return Status();
}

Status write_text(const std::string& path, std::string_view text) {
  if (path == "-") {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
      return write_error("standard output");
    }
    return Status();
  }
  auto file = WholeFile::create(path);
  EDGEQ_RETURN_IF_ERROR(file.status());
  EDGEQ_RETURN_IF_ERROR(file.value().write(text.data(), text.size()));
  return file.value().commit();
}

}  // namespace edgeq
