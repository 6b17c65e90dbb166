package dev.edgecv.core

import java.lang.management.ManagementFactory

/** The preprocessing of a camera frame against whole steps, in turns in one JVM; `benchmarks/frame_path.py` runs it. */
object FramePathBenchmark {
    private val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean

    /** Prints the median milliseconds and allocated bytes of a frame, a line each. The argument is the number of frames. */
    @JvmStatic
    fun main(arguments: Array<String>) {
        val frames = arguments.single().toInt()
        val cropper = Cropper(Preprocessing(224))
        val frame = VgaFrame.of(90)
        val ways = listOf<Pair<String, () -> Unit>>(
            "whole steps" to { VgaFrame.byWholeSteps(90) },
            "frame path" to { cropper.cropAndResize(frame) },
        )
        repeat(frames) { ways.forEach { (_, work) -> work() } } // warm-up
        val measured = List(frames) { ways.map { (_, work) -> measure(work) } }
        ways.forEachIndexed { way, (name, _) ->
            val (ms, bytes) = listOf(0, 1).map { value -> percentile(measured.map { it[way][value] }, 0.5) }
            println("$name: $ms ms, ${bytes.toLong()} bytes")
        }
    }

    private fun measure(work: () -> Unit): List<Double> {
        val bytes = threads.getThreadAllocatedBytes(Thread.currentThread().id)
        val start = System.nanoTime()
        work()
        val ms = (System.nanoTime() - start) / 1e6
        return listOf(ms, (threads.getThreadAllocatedBytes(Thread.currentThread().id) - bytes).toDouble())
    }
}
