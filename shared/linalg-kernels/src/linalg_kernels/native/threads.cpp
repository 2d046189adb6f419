#include "threads.hpp"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

namespace lk {
namespace {

long process_id() {
#if defined(_WIN32)
  return 0;  // no fork
#else
  return (long)getpid();
#endif
}

struct Job {
  RangeFunction f = nullptr;
  void* context = nullptr;
  int64_t count = 0;
  int64_t pieces = 0;
  std::atomic<int64_t> next{0};
};

// Workers sleep until a job comes. A pool belongs to the process that made it:
// after fork() the child has the memory but not the threads, so it makes its
// own and leaves the inherited one where it is.
class Pool {
 public:
  const long owner = process_id();
  std::mutex busy;

  void run(int threads, int64_t count, RangeFunction f, void* context) {
    grow(threads - 1);
    Job job;
    job.f = f;
    job.context = context;
    job.count = count;
    // A few pieces a thread even out blocks that take longer.
    job.pieces = count < 4 * (int64_t)threads ? count : 4 * (int64_t)threads;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = threads - 1 < (int)size_ ? threads - 1 : (int)size_;
      ++generation_;
    }
    wake_.notify_all();
    work(job);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // who has not started yet need not
    done_.wait(lock, [this] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int wanted_ = 0, running_ = 0;
  uint64_t generation_ = 0;
  size_t size_ = 0;

  void grow(int workers) {
    while ((int)size_ < workers) {
      try {
        std::thread([this] { loop(); }).detach();
      } catch (const std::exception&) {
        return;  // fewer threads, same results
      }
      ++size_;
    }
  }

  void loop() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen && wanted_ > 0; });
      seen = generation_;
      --wanted_;
      ++running_;
      Job* job = job_;
      lock.unlock();
      work(*job);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  static void work(Job& job) {
    for (;;) {
      int64_t piece = job.next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= job.pieces) return;
      int64_t first = job.count * piece / job.pieces;
      int64_t last = job.count * (piece + 1) / job.pieces;
      job.f(job.context, first, last);
    }
  }
};

// Never destroyed: its threads sleep until the process ends.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
  Pool* current = the_pool.load(std::memory_order_acquire);
  while (current == nullptr || current->owner != process_id()) {
    Pool* fresh = new Pool;
    if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
  }
  return *current;
}

}  // namespace

void parallel_for(int threads, int64_t count, RangeFunction f, void* context) {
  if (threads > count) threads = (int)count;
  if (threads > 1) {
    Pool& p = pool();
    if (p.busy.try_lock()) {
      std::lock_guard<std::mutex> lock(p.busy, std::adopt_lock);
      p.run(threads, count, f, context);
      return;
    }
  }
  f(context, 0, count);
}

}  // namespace lk
