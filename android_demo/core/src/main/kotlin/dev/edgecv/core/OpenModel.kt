package dev.edgecv.core

/**
 * A model that stays open while any delegate runs it: if one is missing, rejects the model or fails, the next one is tried. Use
 * it only on the thread that opened it.
 *
 * @throws InputError if no delegate runs the model.
 */
internal class OpenModel(private val runtime: Runtime, source: ModelSource, private val settings: Settings) : AutoCloseable {
    private val file = source.file
    private val content = source.content() // the runtime reads the model from this buffer
    private val sidecar = source.sidecar()
    private val labels = source.labels()
    private var delegate = settings.delegate
    private var classifier: Classifier? = null

    /** Why another delegate than the requested one is in use; null if the requested one is. */
    var fallback: String? = null
        private set
    val record: Record get() = opened.record
    val runtimeName: String get() = opened.runtime

    /** How many values the model gives for a picture. */
    val outputs: Int get() = opened.outputs

    /** The SHA-256 of the model file. */
    fun sha256(): String = Record.sha256(content)

    private val opened get() = classifier ?: throw InputError("$file is not open: ${fallback.orEmpty()}")

    init {
        openFrom(settings.delegate)
    }

    /** As [Classifier.classify], with the next delegate if this one fails. */
    fun classify(picture: Picture, readNs: Long): Pair<List<Prediction>, Timing> {
        while (true) {
            try {
                return opened.classify(picture, readNs)
            } catch (error: DelegateError) {
                val next = delegate.fallback ?: throw error
                if (fallback == null) fallback = error.reason()
                close()
                openFrom(next)
            }
        }
    }

    private fun openFrom(first: Delegate) {
        delegate = first
        var reason: DelegateError? = null
        while (true) {
            try {
                classifier = Classifier.open(file, content, sidecar, runtime, settings.copy(delegate = delegate), labels)
                return
            } catch (error: DelegateError) {
                reason = reason ?: error
                if (fallback == null) fallback = error.reason()
                delegate = delegate.fallback ?: throw reason
            }
        }
    }

    override fun close() {
        classifier?.close()
        classifier = null
    }
}
