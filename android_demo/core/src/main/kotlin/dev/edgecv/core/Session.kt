package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import java.nio.ByteBuffer
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/** A model file: in the app's assets or chosen by the user. */
interface ModelSource {
    /** The file name with its extension. */
    val file: String

    /** The file's bytes in a direct buffer. */
    fun content(): ByteBuffer

    /** The text of the `.json` sidecar; null if there is none. */
    fun sidecar(): String?
}

/** A message to the user; the app has its text. */
enum class Notice { OPENING, NO_MODEL, MEASURING, MEASURED }

/**
 * Everything that the screen shows; each change makes a new value.
 *
 * @property settings the requested settings.
 * @property record the record of the open model; null if none is open.
 * @property runtime the runtime and delegate in use, such as "tensorflow-lite 2.16.1 XNNPACK".
 * @property fallback why another delegate than the requested one is in use; null if the requested one is.
 * @property predictions for the last photo, most probable first.
 * @property error why the last step failed, one sentence; null if it succeeded.
 * @property measurement the result of the last benchmark.
 */
data class State(
    val settings: Settings,
    val file: String? = null,
    val record: Record? = null,
    val runtime: String? = null,
    val fallback: String? = null,
    val predictions: List<Prediction> = emptyList(),
    val timings: Timings = Timings(),
    val notice: Notice? = Notice.NO_MODEL,
    val error: String? = null,
    val measurement: JsonObject? = null,
)

/**
 * The open model and the single thread that owns it. Every call returns immediately; each new state is published from
 * that thread.
 *
 * @param publish called with each new state.
 */
class Session(private val runtime: Runtime, settings: Settings, private val publish: (State) -> Unit) : AutoCloseable {
    private val executor = Executors.newSingleThreadExecutor { Thread(it, "inference") }
    private val busy = AtomicBoolean()
    private var source: ModelSource? = null
    private var content: ByteBuffer? = null // the runtime reads the model from this buffer
    private var classifier: Classifier? = null

    @Volatile
    var state = State(settings)
        private set

    /** Whether [offer] would accept a photo. */
    val isFree: Boolean get() = !busy.get()

    /** Opens a model; it replaces the open one. */
    fun open(source: ModelSource) = submit { open(source, state.settings, null) }

    /** Opens the same model again with other settings. */
    fun changeSettings(settings: Settings) = submit {
        val current = source
        if (current == null) show(state.copy(settings = settings)) else open(current, settings, null)
    }

    /** Classifies a photo after all earlier calls. An [InputError] from [photo] is shown. */
    fun classify(photo: () -> Photo) = submit { run(photo) }

    /**
     * Classifies a photo unless another offered one is in progress, so that camera frames do not queue up.
     *
     * @param photo returns the photo; called on the session's thread.
     * @return whether the photo was accepted.
     */
    fun offer(photo: () -> Photo): Boolean {
        if (!busy.compareAndSet(false, true)) return false
        submit {
            try {
                run(photo)
            } finally {
                busy.set(false)
            }
        }
        return true
    }

    /** Closes the model, measures it, and opens it again. */
    fun measure(benchmark: Benchmark, request: BenchmarkRequest, keep: (JsonObject) -> Unit) = submit {
        val current = source ?: throw InputError("There is no model to measure.")
        val settings = state.settings
        show(state.copy(notice = Notice.MEASURING, error = null))
        closeModel()
        val result = try {
            benchmark.measure(current.content(), null, request)
        } catch (error: InputError) {
            open(current, settings, null)
            throw error
        }
        keep(result)
        open(current, settings, null)
        show(state.copy(notice = Notice.MEASURED, measurement = result))
    }

    /** Waits until all earlier calls are done. */
    fun await() {
        executor.submit {}.get()
    }

    override fun close() {
        executor.execute { closeModel() }
        executor.shutdown()
        executor.awaitTermination(10, TimeUnit.SECONDS)
    }

    private fun submit(work: () -> Unit) {
        executor.execute {
            try {
                work()
            } catch (error: InputError) {
                show(state.copy(notice = null, error = error.reason()))
            } catch (error: OutOfMemoryError) {
                show(state.copy(notice = null, error = "The device has too little memory for this."))
            }
        }
    }

    private fun open(source: ModelSource, settings: Settings, failed: DelegateError?) {
        show(State(settings, file = source.file, notice = Notice.OPENING))
        closeModel()
        this.source = null
        val content = source.content()
        var delegate: Delegate? = if (failed == null) settings.delegate else settings.delegate.fallback
        var reason = failed
        while (delegate != null) {
            try {
                val opened = Classifier.open(source.file, content, source.sidecar(), runtime, settings.copy(delegate = delegate))
                this.source = source
                this.content = content
                classifier = opened
                show(State(settings, source.file, opened.record, opened.runtime, reason?.reason(), notice = null))
                return
            } catch (error: DelegateError) {
                if (reason == null) reason = error
                delegate = delegate.fallback
            }
        }
        throw reason ?: InputError("${source.file} cannot be opened.")
    }

    private fun run(photo: () -> Photo) {
        val open = classifier ?: return
        val (predictions, timing) = try {
            open.classify(photo = photo)
        } catch (error: DelegateError) {
            val current = source ?: throw error
            if (state.fallback != null || state.settings.delegate.fallback == null) throw error
            open(current, state.settings, error)
            return
        }
        show(state.copy(predictions = predictions, timings = state.timings + timing, notice = null, error = null))
    }

    private fun closeModel() {
        classifier?.close()
        classifier = null
        content = null
    }

    private fun show(new: State) {
        state = new
        publish(new)
    }
}
