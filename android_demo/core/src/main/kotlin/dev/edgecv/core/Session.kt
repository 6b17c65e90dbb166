package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/**
 * The open models and the single thread that owns them. Every call returns immediately; each new state is published from
 * that thread.
 *
 * @param publish called with each new state, until [close].
 */
class Session(private val runtime: Runtime, settings: Settings, private val publish: (State) -> Unit) : AutoCloseable {
    private val executor = Executors.newSingleThreadExecutor { Thread(it, "inference") }
    private val busy = AtomicBoolean()
    private var source: ModelSource? = null
    private var secondSource: ModelSource? = null
    private var model: OpenModel? = null
    private var second: OpenModel? = null

    @Volatile
    private var closed = false

    @Volatile
    private var cancelled = false

    @Volatile
    var state = State(settings)
        private set

    /** Whether [offer] would accept a picture. */
    val isFree: Boolean get() = !closed && !busy.get()

    /** Opens a model; it replaces the open one. */
    fun open(source: ModelSource) = submit {
        this.source = source
        reopen(state.settings)
    }

    /** Opens the same models again with other settings, also if they could not be opened before. */
    fun changeSettings(settings: Settings) = submit {
        if (source == null) show(state.copy(settings = settings)) else reopen(settings)
    }

    /** Classifies each further picture with this model too, or, if it is null, with the first one only. */
    fun compareWith(source: ModelSource?) = submit {
        secondSource = source
        reopen(state.settings)
    }

    /** Classifies a picture after all earlier calls. An [InputError] from [picture] is shown. */
    fun classify(picture: () -> Picture) = submit { run(0, picture) }

    /**
     * Classifies a picture unless another offered one is in progress, so that camera frames do not queue up.
     *
     * @param readNs the time that it took to read the picture, in nanoseconds; it counts as preprocessing.
     * @param picture returns the picture; called on the session's thread.
     * @return whether the picture was accepted.
     */
    fun offer(readNs: Long = 0, picture: () -> Picture): Boolean {
        if (!busy.compareAndSet(false, true)) return false
        submit {
            try {
                run(readNs, picture)
            } finally {
                busy.set(false)
            }
        }
        return true
    }

    /**
     * Closes the models, measures the first one, and opens them again. The state has the result, or the reason of the failure.
     *
     * @param keep stores the result; an [InputError] is shown.
     */
    fun measure(benchmark: Benchmark, request: BenchmarkRequest, keep: (JsonObject) -> Unit) = submit {
        val current = source ?: throw InputError("There is no model to measure.")
        cancelled = false
        closeModels()
        show(state.copy(notice = Notice.MEASURING, error = null))
        val result = try {
            benchmark.measure(current.file, current.content(), null, request, goesOn = { !closed && !cancelled })
        } catch (_: Cancelled) {
            null
        } catch (error: Exception) {
            Benchmark.failure(error.reason())
        } catch (_: OutOfMemoryError) {
            Benchmark.failure(TOO_LARGE)
        }
        if (result != null) show(state.copy(measured = Measured(current.file, result)))
        reopen(state.settings)
        if (result != null) keep(result)
    }

    /**
     * Classifies labelled photos with the open model. The state has the progress and then the result, or the reason of the failure;
     * a cancelled run has no result.
     *
     * @param keep stores the result; an [InputError] is shown.
     */
    fun evaluate(accuracy: Accuracy, keep: (JsonObject) -> Unit) = submit {
        val current = model ?: throw InputError("There is no open model to evaluate.")
        val file = source?.file.orEmpty()
        cancelled = false
        show(state.copy(notice = Notice.EVALUATING, error = null, progress = Progress(0, accuracy.size)))
        var failed = false
        val result = try {
            accuracy.measure(current, file, state.settings, { show(state.copy(progress = it)) }, { !closed && !cancelled })
        } catch (_: Cancelled) {
            null
        } catch (error: Exception) {
            failed = true
            Benchmark.failure(error.reason())
        } catch (_: OutOfMemoryError) {
            failed = true
            Benchmark.failure(TOO_LARGE)
        }
        show(state.copy(notice = null, progress = null, measured = if (result == null) state.measured else Measured(file, result)))
        if (failed) reopen(state.settings)
        if (result != null) keep(result)
    }

    /** Removes the result of the benchmark or of the accuracy run from the state. */
    fun dismissMeasured() = submit { show(state.copy(measured = null)) }

    /** Stops the benchmark or the accuracy run in progress before its next inference. */
    fun cancel() {
        cancelled = true
    }

    /** Waits until all earlier calls are done. */
    fun await() {
        executor.submit {}.get()
    }

    /** Closes the models after the inference in progress; later calls do nothing. Does not wait. */
    override fun close() {
        if (closed) return
        closed = true
        executor.execute { closeModels() }
        executor.shutdown()
    }

    /** Waits until [close] is done; returns whether it was within that time. */
    fun awaitClosed(seconds: Long): Boolean = executor.awaitTermination(seconds, TimeUnit.SECONDS)

    private fun submit(work: () -> Unit) {
        try {
            executor.execute { if (!closed) guarded(work) }
        } catch (_: RejectedExecutionException) {
            return // it was closed meanwhile
        }
    }

    /** Shows any failure instead of ending the app: files, vendors' drivers and delegates throw undocumented exceptions. */
    private fun guarded(work: () -> Unit) = try {
        work()
    } catch (error: InputError) {
        fail(error.reason())
    } catch (error: RuntimeException) {
        fail("This failed: ${error.reason()}")
    } catch (_: OutOfMemoryError) {
        fail(TOO_LARGE)
    }

    private fun fail(reason: String) = show(state.copy(notice = null, error = reason, progress = null))

    private fun reopen(settings: Settings) {
        closeModels()
        val source = source ?: return
        show(State(settings, ModelState(source.file), notice = Notice.OPENING, measured = state.measured))
        model = OpenModel(runtime, source, settings).also {
            show(state.copy(model = it.shown(source.file), notice = null))
        }
        val other = secondSource ?: return
        second = OpenModel(runtime, other, settings).also { show(state.copy(second = it.shown(other.file))) }
    }

    private fun OpenModel.shown(file: String) = ModelState(file, record, runtimeName, fallback)

    private fun run(readNs: Long, picture: () -> Picture) {
        val first = model ?: return
        val upright = picture()
        val one = first.classified(state.model, upright, readNs)
        val two = second?.classified(state.second, upright, readNs)
        val same = two?.let { it.predictions.firstOrNull()?.label == one.predictions.firstOrNull()?.label }
        val agreement = if (same == null) state.agreement else state.agreement + same
        show(state.copy(model = one, second = two, agreement = agreement, notice = null, error = null))
    }

    private fun OpenModel.classified(before: ModelState?, picture: Picture, readNs: Long): ModelState {
        val (predictions, timing) = classify(picture, readNs)
        val earlier = before?.timings?.takeIf { before.runtime == runtimeName } ?: Timings()
        return ModelState(before?.file.orEmpty(), record, runtimeName, fallback, predictions, earlier + timing)
    }

    private fun closeModels() {
        model?.close()
        model = null
        second?.close()
        second = null
    }

    private fun show(new: State) {
        state = new
        if (!closed) publish(new)
    }

    private companion object {
        const val TOO_LARGE = "The device has too little memory for this."
    }
}
