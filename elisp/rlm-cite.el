;;; rlm-cite.el --- Go to the quoted place -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; An answer cites by quoting, and the daemon says where the quote
;; stands: code points of the text that it was given.  Here this
;; becomes a place in a buffer.  The place is believed only if the
;; quote is there; a text that has been edited since is searched for
;; it, and of several places the nearest to the old one is taken.
;;
;; Org links of type rlm, as in [[rlm:RUN-ID::2][notes.txt:120]], lead
;; there, in saved files too: a run that this Emacs does not know is
;; asked of the daemon.

;;; Code:

(require 'rlm-run)
(require 'rlm-context)
(require 'ol)
(require 'pulse)
(require 'subr-x)

(declare-function org-element-context "org-element" (&optional element))
(declare-function org-element-type "org-element" (element))
(declare-function org-element-property "org-element" (property element))
(declare-function org-export-derived-backend-p "ox" (backend &rest backends))
(declare-function org-html-encode-plain-text "ox-html" (text))

(autoload 'rlm-open-run "rlm-again" nil t)
(defvar rlm--run)

(defface rlm-unverified '((t :inherit warning))
  "Face for citations whose quote was not found in the text."
  :group 'rlm)

;;;; What a citation says

(defun rlm--citation (run number)
  "Return the citation NUMBER of RUN, or nil."
  (seq-find (lambda (citation) (eql number (plist-get citation :number)))
            (rlm-run-citations run)))

(defun rlm--citation-verified-p (citation)
  "Return non-nil if CITATION's quote was found in the text."
  (rlm--true-p (plist-get citation :verified)))

(defun rlm--citation-source (run citation)
  "Return the source of RUN in which CITATION stands, or nil."
  (seq-find (lambda (source)
              (equal (rlm-source-name source) (plist-get citation :context)))
            (rlm-run-sources run)))

(defun rlm--citation-label (run citation)
  "Return where CITATION of RUN stands, for a person.
Lines count in the whole buffer, whatever part of it was asked about."
  (let* ((source (rlm--citation-source run citation))
         (locator (plist-get citation :locator))
         (line (plist-get locator :line)))
    (cond ((not (rlm--citation-verified-p citation)) "not found in the text")
          ((and source (rlm-source-where source)
                (funcall (rlm-source-where source) source citation)))
          ((and line source (rlm-source-buffer source))
           (format "%s:%d" (rlm-source-label source)
                   (+ line (rlm-source-line source) -1)))
          ((and line source (rlm-source-paths source))
           (format "%s:%d" (plist-get citation :document) line))
          (t (or (plist-get locator :label) "the text")))))

;;;; Finding the place

(defun rlm--citations-mark (run event _data)
  "When RUN is over, as EVENT says, mark the places that it cites.
Markers go along with what is edited from now on; what was edited
while the run was going is searched for, see `rlm--find-quote'."
  (when (eq event 'ended)
    (dolist (citation (rlm-run-citations run))
      (let ((source (rlm--citation-source run citation))
            (offset (plist-get citation :start)))
        (when (and source offset
                   (rlm-source-exact source)
                   (rlm--source-unchanged-p source))
          (push (cons (plist-get citation :number)
                      (set-marker (make-marker)
                                  (+ offset (rlm-source-start source))
                                  (rlm-source-buffer source)))
                (rlm-run-marks run)))))))

(add-hook 'rlm-run-functions #'rlm--citations-mark)

(defun rlm--citation-place (run citation)
  "Return (BUFFER BEG END MOVED) for CITATION of RUN, or nil.
MOVED is non-nil if the quote was not where it was expected.  If
the place is shown already it is (BUFFER) alone."
  (pcase (rlm--citation-buffer run citation)
    ((and `(,_buffer) shown) shown)
    (`(,buffer ,start ,end)
     (with-current-buffer buffer
       (save-excursion
         (save-restriction
           (widen)
           (let* ((start (or start (point-min)))
                  (end (or end (point-max)))
                  (near (rlm--citation-expected run citation start end))
                  (place (rlm--find-quote (plist-get citation :quote)
                                          near start end)))
             (when place
               (list buffer (car place) (cdr place)
                     (/= near (car place)))))))))))

(defun rlm--citation-expected (run citation start end)
  "Return where CITATION of RUN should stand in the current buffer.
START and END are those of the text that was asked about."
  (let ((mark (cdr (assoc (plist-get citation :number) (rlm-run-marks run)))))
    (max start
         (min end (if (and mark (eq (marker-buffer mark) (current-buffer)))
                      (marker-position mark)
                    (+ start (or (plist-get citation :start) 0)))))))

(defun rlm--citation-buffer (run citation)
  "Return (BUFFER START END) of the text that CITATION of RUN stands in.
START and END are nil for a whole buffer; there are none if the
place is shown, but cannot be searched, as in a PDF.  A file is
visited for it if need be.  Nil if the text is in no buffer and no file."
  (let* ((source (rlm--citation-source run citation))
         (buffer (and source (rlm-source-buffer source)))
         (path (or (and source (rlm-source-file source))
                   (plist-get (plist-get citation :locator) :path))))
    (cond ((and source (rlm-source-place source))
           (funcall (rlm-source-place source) source citation))
          ((buffer-live-p buffer)
           (list buffer (marker-position (rlm-source-start source))
                 (marker-position (rlm-source-end source))))
          ((and path (file-name-absolute-p path) (file-readable-p path)
                (not (file-directory-p path)))
           (list (find-file-noselect path) nil nil)))))

(defun rlm--find-quote (quote near start end)
  "Return (BEG . END) of QUOTE between START and END of the buffer.
It is looked for at NEAR first; of other places the nearest is
taken.  Differences of white space, case and typographic signs are
overlooked if there is no exact one."
  (let ((regexp (rlm--quote-regexp quote))
        (case-fold-search t))
    (goto-char near)
    (cond
     ((rlm--quote-at-p quote near end) (cons near (+ near (length quote))))
     ((looking-at regexp) (cons near (match-end 0)))
     ((let ((case-fold-search nil))
        (rlm--nearest quote #'search-forward #'search-backward near start end)))
     (t (rlm--nearest regexp #'re-search-forward #'re-search-backward
                      near start end)))))

(defun rlm--quote-at-p (quote position end)
  "Return non-nil if QUOTE stands at POSITION, before END."
  (let ((stop (+ position (length quote))))
    (and (<= stop end)
         (string= quote (buffer-substring-no-properties position stop)))))

(defun rlm--nearest (what forward backward near start end)
  "Search WHAT by FORWARD and BACKWARD between START and END.
Return (BEG . END) of the match that begins nearest to NEAR, or nil."
  (let ((before (progn (goto-char near)
                       ;; A match may begin before NEAR and end after it.
                       (forward-char (min (length what) (- end near)))
                       (and (funcall backward what start t)
                            (cons (match-beginning 0) (match-end 0)))))
        (after (progn (goto-char near)
                      (and (funcall forward what end t)
                           (cons (match-beginning 0) (match-end 0))))))
    (cond ((null before) after)
          ((null after) before)
          ((<= (abs (- near (car before))) (abs (- (car after) near))) before)
          (t after))))

(defconst rlm--quote-words 40
  "Words of a quote that are looked for when it is not found exactly.")

(defun rlm--quote-regexp (quote)
  "Return a regexp for QUOTE that overlooks what typesetting changes."
  (mapconcat
   (lambda (word)
     (mapconcat (lambda (char)
                  (cond ((memq char '(?' ?‘ ?’ ?`)) "['‘’`]")
                        ((memq char '(?\" ?“ ?” ?„)) "[\"“”„]")
                        ((memq char '(?- ?– ?— ?‐)) "[-–—‐]")
                        (t (regexp-quote (string char)))))
                word ""))
   (seq-take (split-string quote) rlm--quote-words)
   "[[:space:]\n\r]+"))

;;;; Going there

(defun rlm--citation-visit (run citation)
  "Show the place that CITATION of RUN quotes; return what to say of it."
  (let* ((total (length (rlm-run-citations run)))
         (place (and (rlm--citation-verified-p citation)
                     (rlm--citation-place run citation)))
         (head (format "[%d/%d] %s" (plist-get citation :number) total
                       (rlm--citation-label run citation)))
         (quote (rlm--one-line (plist-get citation :quote)
                               (max 20 (- (frame-width) (length head) 14)))))
    (pcase place
      (`(,_buffer)
       (format "%s: “%s”" head quote))
      (`(,buffer ,beg ,end ,moved)
       (rlm--show-place buffer beg end)
       (format "%s%s: “%s”" head (if moved " (moved)" "") quote))
      (_
       (format "%s: “%s”"
               (propertize (if (rlm--citation-verified-p citation)
                               (concat head ", no longer there")
                             head)
                           'face 'rlm-unverified)
               quote)))))

(defun rlm--show-place (buffer beg end)
  "Select a window that shows BUFFER from BEG to END, and let it pulse."
  (rlm--select-window buffer)
  (unless (<= (point-min) beg end (point-max))
    (widen))
  (unless (= beg (point))
    (push-mark nil t))
  (goto-char beg)
  (rlm--reveal)
  (pulse-momentary-highlight-region beg end 'next-error))

(defun rlm--select-window (buffer)
  "Select a window that shows BUFFER, and let the answer be seen."
  (let ((window (get-buffer-window buffer)))
    (cond (window
           (select-window window)
           (set-buffer buffer))
          ;; The link, or the list of citations, stays.
          ((with-current-buffer (window-buffer) (derived-mode-p 'org-mode))
           (pop-to-buffer buffer '(nil (inhibit-same-window . t))))
          (t (pop-to-buffer-same-window buffer)))))

(defun rlm--reveal ()
  "Make point visible if its text is folded."
  (cond ((and (derived-mode-p 'org-mode) (invisible-p (point)))
         (funcall (if (fboundp 'org-fold-show-context)
                      'org-fold-show-context
                    'org-show-context)))
        (t (dolist (overlay (overlays-at (point)))
             (when-let ((open (overlay-get overlay 'isearch-open-invisible)))
               (when (invisible-p (point))
                 (funcall open overlay)))))))

;;;; Links

(defun rlm--link-parse (path)
  "Return (RUN-ID . WHAT) that the link's PATH names, or nil.
WHAT is the number of a citation, (unread . NUMBER), or nil for
the answer."
  (when (string-match "\\`\\([0-9a-f]+-[0-9a-f-]+\\)\\(?:::\\(unread-\\)?\\([0-9]+\\)\\)?\\'" path)
    (let ((number (and (match-string 3 path) (string-to-number (match-string 3 path)))))
      (cons (match-string 1 path)
            (if (match-string 2 path) (cons 'unread number) number)))))

(defun rlm-link-follow (path &optional _argument)
  "Go to the place that the rlm link PATH cites, or to the answer."
  (pcase (rlm--link-parse path)
    ('nil (user-error "Not a citation: rlm:%s" path))
    (`(,id) (rlm-open-run id))
    (`(,id . ,what)
     (if-let ((run (rlm-run-find id)))
         (rlm--link-visit run what)
       (rlm--run-recall id (lambda (run) (rlm--link-visit run what)))))))

(defun rlm--link-visit (run what)
  "Go to the place WHAT of RUN: a citation's number or (unread . NUMBER)."
  (if-let ((number (cdr-safe what)))
      (rlm--unread-visit run number)
    (if-let ((citation (rlm--citation run what)))
        (message "%s" (rlm--citation-visit run citation))
      (user-error "That answer has no citation %d" what))))

;;;;; Stretches that no model read

(defun rlm--span-place (run span)
  "Return (BUFFER BEG END) of SPAN, a stretch of a context of RUN, or nil."
  (pcase (rlm--citation-buffer run span)
    (`(,buffer ,start ,_end)
     (with-current-buffer buffer
       (save-restriction
         (widen)
         (let* ((start (or start (point-min)))
                (position (lambda (offset) (min (point-max) (+ start offset)))))
           (list buffer (funcall position (plist-get span :start))
                 (funcall position (plist-get span :end)))))))))

(defun rlm--span-label (run span)
  "Return where SPAN, a stretch of a context of RUN, is, for a person."
  (let ((source (rlm--citation-source run span)))
    (or (when (and source (buffer-live-p (rlm-source-buffer source))
                   (null (rlm-source-place source)))
          (pcase (rlm--span-place run span)
            (`(,buffer ,beg ,end)
             (with-current-buffer buffer
               (format "%s:%d–%d" (rlm-source-label source)
                       (rlm--line-number beg) (rlm--line-number end))))))
        (format "%s %d–%d" (or (plist-get span :document) "the text")
                (plist-get span :start) (plist-get span :end)))))

(defun rlm--unread-visit (run number)
  "Make the NUMBERth stretch that no model read in RUN the region.
So `rlm-query' asks of it next."
  (let ((span (nth (1- number)
                   (append (plist-get (rlm-run-receipt run) :unread) nil))))
    (pcase (and span (rlm--span-place run span))
      (`(,buffer ,beg ,end)
       (rlm--show-place buffer beg end)
       (push-mark end t t)
       (setq deactivate-mark nil)
       (message "No model read this; %s asks of it"
                (substitute-command-keys "\\[rlm-query]")))
      (_ (user-error "That stretch is in no buffer and no file")))))

(defun rlm--run-recall (id callback)
  "Ask the daemon for the run ID; call CALLBACK with it."
  (rlm-call "run/show" (list :run_id id)
            :success
            (lambda (result)
              (let ((run (rlm--run-from-result id result)))
                ;; Visiting a file may ask questions: not in a callback.
                (run-at-time 0 nil (lambda ()
                                     (with-demoted-errors "%S"
                                       (funcall callback run))))))))

(defun rlm--run-from-result (id result)
  "Return the run ID that RESULT, of run/show, describes."
  (let ((run (rlm--run-make :id id :socket (rlm-socket-path))))
    (setf (rlm-run-citations run) (append (plist-get result :citations) nil)
          (rlm-run-answer run) (plist-get result :answer)
          (rlm-run-receipt run) (plist-get result :receipt)
          (rlm-run-state run) (intern (plist-get (plist-get result :run) :state))
          (rlm-run-link run) 'done)
    (puthash id run rlm--runs)))

(defun rlm--link-citation (path)
  "Return (RUN . CITATION) of the rlm link PATH as far as known."
  (when-let* ((parsed (rlm--link-parse path))
              (run (and (integerp (cdr parsed)) (rlm-run-find (car parsed))))
              (citation (rlm--citation run (cdr parsed))))
    (cons run citation)))

(defun rlm--link-face (path)
  "Return the face of the rlm link PATH."
  (let ((known (rlm--link-citation path)))
    (if (and known (not (rlm--citation-verified-p (cdr known))))
        'rlm-unverified
      'org-link)))

(defun rlm--link-export (path description backend &optional _info)
  "Return DESCRIPTION of the citation PATH for BACKEND.
Outside Emacs it leads nowhere; what it quotes goes along."
  (let* ((text (or description path))
         (known (rlm--link-citation path))
         (quote (and known (plist-get (cdr known) :quote))))
    (cond ((and quote (org-export-derived-backend-p backend 'html))
           (format "<cite title=\"%s\">%s</cite>"
                   ;; Which leaves the quotes that would end the attribute.
                   (string-replace "\"" "&quot;"
                                   (org-html-encode-plain-text (rlm--one-line quote 300)))
                   (org-html-encode-plain-text text)))
          (t text))))

(defun rlm--link-store ()
  "Store a link to the citation at point, or to the answer in this buffer."
  (when (bound-and-true-p rlm--run)
    (let* ((run rlm--run)
           (element (and (derived-mode-p 'org-mode) (org-element-context)))
           (path (and (eq 'link (org-element-type element))
                      (equal "rlm" (org-element-property :type element))
                      (org-element-property :path element)))
           (known (and path (rlm--link-citation path))))
      (org-link-store-props
       :type "rlm"
       :link (concat "rlm:" (or path (rlm-run-id run)))
       :description (if known
                        (rlm--citation-label run (cdr known))
                      (rlm--one-line (rlm-run-question run) 60))))))

(org-link-set-parameters "rlm"
                         :follow #'rlm-link-follow
                         :store #'rlm--link-store
                         :face #'rlm--link-face
                         :export #'rlm--link-export)

(provide 'rlm-cite)
;;; rlm-cite.el ends here
