// SPDX-License-Identifier: Apache-2.0
// An MPI program that checks its own results, for the table of programs: collectives of several
// sizes, messages in a ring, and one-sided windows. Prints what it checked; exits with 1 if
// anything was wrong.
#ifdef HAVE_MPI
#define OMPI_SKIP_MPICXX 1  // its old C++ interface is in a library of its own

#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

int rank = 0, ranks = 0, checks = 0, failures = 0;

void Check(bool ok, const char* what) {
  ++checks;
  if (ok) return;
  ++failures;
  std::fprintf(stderr, "rank %d: %s is wrong\n", rank, what);
}

int64_t Value(int of, size_t i) { return of * 1'000'003 + static_cast<int64_t>(i); }

std::vector<int64_t> Mine(size_t n) {
  std::vector<int64_t> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = Value(rank, i);
  return v;
}

void Collectives(int n) {
  std::vector<int64_t> v = Mine(static_cast<size_t>(n)), sum(v.size());
  MPI_Allreduce(v.data(), sum.data(), n, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  int64_t wanted = 0;
  for (int r = 0; r < ranks; ++r) wanted += Value(r, v.size() - 1);
  Check(sum.back() == wanted, "all-reduce");
  MPI_Bcast(v.data(), n, MPI_INT64_T, ranks - 1, MPI_COMM_WORLD);
  Check(v.back() == Value(ranks - 1, v.size() - 1), "broadcast");
  const std::vector<int64_t> own = Mine(v.size());
  std::vector<int64_t> all(v.size() * static_cast<size_t>(ranks));
  MPI_Allgather(own.data(), n, MPI_INT64_T, all.data(), n, MPI_INT64_T, MPI_COMM_WORLD);
  bool right = true;
  for (int r = 0; r < ranks; ++r) {
    right = right && all[v.size() * static_cast<size_t>(r)] == Value(r, 0);
  }
  Check(right, "all-gather");
  std::vector<int64_t> out(all.size()), in(all.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = Value(rank, i);
  MPI_Alltoall(out.data(), n, MPI_INT64_T, in.data(), n, MPI_INT64_T, MPI_COMM_WORLD);
  right = true;
  for (int r = 0; r < ranks; ++r) {
    const size_t first = v.size() * static_cast<size_t>(r);
    right = right && in[first] == Value(r, v.size() * static_cast<size_t>(rank));
  }
  Check(right, "all-to-all");
  MPI_Barrier(MPI_COMM_WORLD);
}

void Ring(int n) {
  const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
  const std::vector<int64_t> v = Mine(static_cast<size_t>(n));
  std::vector<int64_t> got(v.size());
  MPI_Sendrecv(v.data(), n, MPI_INT64_T, next, 7, got.data(), n, MPI_INT64_T, before, 7,
               MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  Check(got.back() == Value(before, got.size() - 1), "send and receive");
}

// The last place counts: everybody adds to it everywhere.
void Windows(int n) {
  const int next = (rank + 1) % ranks;
  std::vector<int64_t> shared(static_cast<size_t>(n) + 1), got(static_cast<size_t>(n));
  const std::vector<int64_t> v = Mine(got.size());
  MPI_Win window;
  MPI_Win_create(shared.data(), static_cast<MPI_Aint>(shared.size() * sizeof(int64_t)),
                 sizeof(int64_t), MPI_INFO_NULL, MPI_COMM_WORLD, &window);
  MPI_Win_fence(0, window);
  MPI_Put(v.data(), n, MPI_INT64_T, next, 0, n, MPI_INT64_T, window);
  MPI_Win_fence(0, window);
  const int before = (rank + ranks - 1) % ranks;
  Check(shared[0] == Value(before, 0) && shared[got.size() - 1] == Value(before, got.size() - 1),
        "put");
  MPI_Win_lock_all(0, window);
  MPI_Get(got.data(), n, MPI_INT64_T, next, 0, n, MPI_INT64_T, window);
  MPI_Win_flush(next, window);
  Check(got.back() == Value(rank, got.size() - 1), "get");
  const int64_t one = 1;
  int64_t former = 0;
  for (int r = 0; r < ranks; ++r) {
    MPI_Fetch_and_op(&one, &former, MPI_INT64_T, r, n, MPI_SUM, window);
    MPI_Accumulate(&one, 1, MPI_INT64_T, r, n, 1, MPI_INT64_T, MPI_SUM, window);
  }
  MPI_Win_flush_all(window);
  MPI_Win_unlock_all(window);
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Win_lock(MPI_LOCK_SHARED, rank, 0, window);
  Check(shared.back() == 2 * ranks, "fetch-and-op and accumulate");
  MPI_Win_unlock(rank, window);
  MPI_Win_free(&window);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (const int n : {1, 100, 5000, 200'000}) {
    Collectives(n);
    Ring(n);
    Windows(n);
  }
  int all_checks = 0, all_failures = 0;
  MPI_Reduce(&checks, &all_checks, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Allreduce(&failures, &all_failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0) std::printf("%d ranks, %d checks, %d wrong\n", ranks, all_checks, all_failures);
  MPI_Finalize();
  return all_failures == 0 ? 0 : 1;
}

#else

#include <cstdio>

int main() {
  std::puts("this was built without MPI");
  return 1;
}

#endif
